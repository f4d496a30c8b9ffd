"""Diagrams: read strictly, written so that labels stay labels, drawn within the rules."""

import html
import re
import unicodedata
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings

from tests.unit.assets.describing import HOSTILE, described
from workers.assets.diagram import MAX_EDGES, MAX_LABEL_CHARS, MAX_NODES, Diagram, DiagramRefused, read_diagram
from workers.assets.layout import Size, lay_out
from workers.assets.mermaid import mermaid
from workers.assets.rules import SvgRefused, check_svg
from workers.assets.svg import draw

QUICK = settings(max_examples=80, deadline=None, database=None)
SVG = "{http://www.w3.org/2000/svg}"

LABEL = r'"[^"#;%<>&`\n\r]*(?:#\d{1,7};[^"#;%<>&`\n\r]*)*"'
MERMAID = re.compile(
    rf"flowchart (?:TB|LR)\n  accTitle: [^\n\"%<>&`]+\n(?:  n\d+\[{LABEL}\]\n)+(?:  n\d+ -->(?:\|{LABEL}\|)? n\d+\n)*"
)


def graph(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Returns",
        "nodes": [{"id": "a", "label": "Asked"}, {"id": "b", "label": "Booked"}],
        "edges": [{"from": "a", "to": "b", "label": "yes"}],
    } | changes


def read_or_skip(given_: dict[str, Any]) -> Diagram:
    """Labels without anything visible are refused, which is another test's affair."""
    try:
        return read_diagram(given_)
    except DiagramRefused as refused:
        assume("at least 1" not in str(refused))
        raise


def node(name: str) -> dict[str, str]:
    return {"id": name, "label": name}


@pytest.mark.parametrize(
    ("described_as", "says"),
    [
        ("no object", "the whole"),
        ({}, "title: Field required"),
        (graph(nodes=[]), "nodes: "),
        (graph(nodes=[node(f"n{n}") for n in range(MAX_NODES + 1)], edges=[]), f"at most {MAX_NODES}"),
        (graph(edges=[{"from": "a", "to": "b"}] * (MAX_EDGES + 1)), f"at most {MAX_EDGES}"),
        (graph(nodes=[node("a"), node("b"), node("a")]), "node 3 has the id of an earlier node"),
        (graph(edges=[{"from": "a", "to": "secret"}]), "edge 1 names a node that the diagram does not have"),
        (graph(edges=[{"from": "a", "to": "a"}]), "edge 1 leads from a node to itself"),
        (graph(edges=[{"from": "a", "to": "b"}, {"from": "a", "to": "b"}]), "edge 2 repeats an earlier edge"),
        (graph(nodes=[{"id": "a", "label": "\x00\u202e \n"}], edges=[]), "nodes.0.label"),
        (graph(nodes=[{"id": "a", "label": "A", "secret": "x"}], edges=[]), "nodes.0.…"),
        (graph(direction="secret"), "direction"),
        (graph(title=7), "title"),
    ],
)
def test_a_description_that_is_no_diagram_says_what_is_wrong(described_as: object, says: str) -> None:
    """Each problem names its place, and none quotes what the model wrote."""
    with pytest.raises(DiagramRefused, match=re.escape(says)) as refused:
        read_diagram(described_as)
    assert "secret" not in str(refused.value)


def test_labels_are_one_line_of_bounded_length() -> None:
    """Control, format and direction characters go, white space is one space, and what is long is cut with a mark."""
    read = read_diagram(graph(title="a\x00\u202eb\n\n c\u2028d" + "x" * 500, edges=[]))
    assert read.title.startswith("ab c d")
    assert len(read.title) == 100
    assert read.title.endswith("…")
    assert read_diagram(graph(edges=[{"from": "a", "to": "b", "label": None}])).edges[0].label == ""


@given(described())
@QUICK
def test_a_label_in_mermaid_stays_a_label(given_: dict[str, Any]) -> None:
    """Whatever labels hold, each line is a heading, a node or an edge of ours, and decodes to the label itself."""
    diagram = read_or_skip(given_)
    source = mermaid(diagram)

    assert MERMAID.fullmatch(source)
    assert "%%" not in source
    shown = re.findall(r'\["(.*)"\]', source)
    assert [html.unescape(re.sub(r"#(\d+);", r"&#\1;", label)) for label in shown] == [n.label for n in diagram.nodes]


@given(described())
@QUICK
def test_a_drawing_keeps_the_rules_and_shows_every_word(given_: dict[str, Any]) -> None:
    """Whatever labels hold, the SVG is well-formed, within the allow-list, and its texts are the labels."""
    diagram = read_or_skip(given_)
    drawn = draw(diagram)

    root = ElementTree.fromstring(drawn)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    edges = [edge.label for edge in diagram.edges if edge.label]
    assert [_bare(text) for text in texts] == [
        _bare(text) for text in (diagram.title, *edges, *(node.label for node in diagram.nodes))
    ]
    assert draw(diagram) == drawn


def _bare(text: str) -> str:
    """Return a text without its spaces, at which lines are broken."""
    return "".join(text.split())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_each_hostile_label_is_kept_as_words(hostile: str) -> None:
    """A label made to break out is drawn and written as the words it is, less what has no shape."""
    diagram = read_diagram(graph(title=hostile, nodes=[{"id": "a", "label": hostile}], edges=[]))
    assert all(not unicodedata.category(char).startswith("C") for char in diagram.nodes[0].label)
    assert MERMAID.fullmatch(mermaid(diagram))
    for inside in (b"<script", b"<img", b"<svg onload", b"]]>", b"<!", b"<?"):
        assert inside not in draw(diagram)


@given(described(most=8))
@QUICK
def test_nothing_is_drawn_over_a_box(given_: dict[str, Any]) -> None:
    """Boxes and labels never overlap, and everything lies within the drawing."""
    count = len(given_["nodes"])
    names = {n["id"]: at for at, n in enumerate(given_["nodes"])}
    arrows = [(names[edge["from"]], names[edge["to"]]) for edge in given_["edges"]]
    sizes = [Size(40 + 7 * n, 30 + 3 * n) for n in range(count)]
    labels = [Size(30, 17) if edge["label"] else None for edge in given_["edges"]]

    layout = lay_out(sizes, arrows, labels)

    middles = [*layout.boxes, *(way.label for way in layout.ways if way.label is not None)]
    extents = [*sizes, *(label for label in labels if label is not None)]
    for (one, a), (other, b) in combinations(zip(middles, extents, strict=True), 2):
        beside = abs(one.across - other.across) >= (a.across + b.across) / 2 - 1e-6
        apart = abs(one.along - other.along) >= (a.along + b.along) / 2 - 1e-6
        assert beside or apart
    for middle, extent in zip(middles, extents, strict=True):
        assert extent.across / 2 - 1e-6 <= middle.across <= layout.size.across - extent.across / 2 + 1e-6
        assert extent.along / 2 - 1e-6 <= middle.along <= layout.size.along - extent.along / 2 + 1e-6


def test_the_largest_diagram_stays_small() -> None:
    """Thirty boxes and sixty arrows with the longest labels are drawn in some hundred kilobytes."""
    wide = "界" * MAX_LABEL_CHARS
    ways = [(a, b) for a, b in combinations(range(MAX_NODES), 2) if b - a in (1, 29, 7)][:MAX_EDGES]
    for nodes in ([(str(n), wide) for n in range(MAX_NODES)], [(str(n), "x") for n in range(MAX_NODES)]):
        for edges in ([], ways):
            for direction in ("TB", "LR"):
                diagram = read_diagram(
                    {
                        "title": wide,
                        "nodes": [{"id": name, "label": label} for name, label in nodes],
                        "edges": [{"from": str(a), "to": str(b), "label": wide} for a, b in edges],
                        "direction": direction,
                    }
                )
                assert len(draw(diagram)) < 150_000


DRAWN = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" width="10" height="10">{}</svg>'


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<foreignObject><p xmlns='http://www.w3.org/1999/xhtml'/></foreignObject>",
        '<image href="https://evil.example/x.png"/>',
        '<a href="javascript:alert(1)"><text/></a>',
        '<use href="#x"/>',
        "<style>*{fill:url(https://evil.example)}</style>",
        '<rect onload="alert(1)"/>',
        '<rect fill="url(#x)"/>',
        '<rect fill="#ffffff" style="x"/>',
        '<rect width="99999" height="1"/>',
        '<path d="M1,1L"/>',
        '<animate attributeName="href"/>',
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" width="10" height="10"/>',
        "<!-- a comment -->",
        "<?xml-stylesheet href='x'?>",
        "<![CDATA[x]]>",
        "&x;",
        "loose text",
        "<tspan>text outside of a text</tspan>",
        "<x:rect xmlns:x='http://www.w3.org/2000/svg'/>",
        "<rect>",
        "<text></text>" * 2_001,
    ],
)
def test_whatever_no_drawing_of_ours_has_is_refused(inside: str) -> None:
    """Scripts, references, styles, comments, entities and unknown names do not pass, nor does what is too large."""
    check_svg(DRAWN.format('<text><tspan x="1" y="1">words</tspan></text>').encode())
    with pytest.raises(SvgRefused):
        check_svg(DRAWN.format(inside).encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html/>",
        b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        b'<svg viewBox="0 0 1 1" width="1" height="1"/>',
        b"\xff\xfe<\x00s\x00v\x00g\x00/\x00>\x00",
        DRAWN.format("").encode() + b" " * 1_048_576,
    ],
)
def test_a_document_that_is_no_svg_is_refused(document: bytes) -> None:
    """No document, another root, declarations, a missing namespace, another encoding and a megabyte are refused."""
    with pytest.raises(SvgRefused):
        check_svg(document)
