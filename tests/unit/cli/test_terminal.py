"""HTML from a model as text on a terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.terminal import BOLD, RESET, TerminalText, dim, harmless
from schemas.citations import Cited
from workers.answers.closing import sources_html

STYLES = re.compile(r"\x1b\[[0-3]m")


def shown(html: str, *, styled: bool = False) -> str:
    text = TerminalText(styled=styled)
    return text.show(html) + text.end()


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One.</p><p>Two.</p>", "One.\n\nTwo."),
        ("<p>One<br>two</p>", "One\ntwo"),
        ("<p> a \n b </p>", "a b"),
        ("<p>See:</p><ul><li>a</li><li>b</li></ul><p>end</p>", "See:\n  • a\n  • b\n\nend"),
        ("<ol><li>a</li><li><p>b</p></li></ol>", "  1. a\n  2. b"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "  • a\n    • b\n  • c"),
        ("<h3>Title</h3><p>text</p>", "Title\n\ntext"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ('<a href="https://example.com/x">here</a>.', "here (https://example.com/x)."),
        ('<a href="javascript:alert(1)">here</a>', "here"),
        ("a &lt;b&gt; &amp; c", "a <b> & c"),
        ("<script>alert(1)</script>after", "after"),
        ("<unknown>kept</unknown>", "kept"),
        ("plain <b>bold</b>, <em>more</em>", "plain bold, more"),
    ],
)
def test_tags_become_text(html: str, text: str) -> None:
    """Blocks, lists, links and references read as they would on a page."""
    assert shown(html) == text


def test_styles_are_set_and_reset() -> None:
    """With styles bold is bold, nested styles come back, and an answer that breaks off leaves none behind."""
    assert shown("a <b>b</b> c", styled=True) == f"a {BOLD}b{RESET} c"
    assert shown("<b>never ended", styled=True) == f"{BOLD}never ended{RESET}"
    assert shown("<b>a <i>b</i> c</b>", styled=True).count(BOLD) == 2


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b31m",
        "\r",
        "\x08\x08",
        "\x7f",
        "\u202edesrever",
        "&#27;[31m",
        "&#x9b;31m",
        "<pre>\x1b[1m</pre>",
        '<a href="https://x/\x1b[1m">y</a>',
    ],
)
def test_nothing_commands_the_terminal(evil: str) -> None:
    """Escape sequences, written out or as references, in text or addresses, are made harmless."""
    text = shown(f"<p>before {evil} after</p>")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert text.startswith("before")
    assert "after" in text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 50), max_size=6))
def test_any_text_in_any_pieces_is_harmless(html: str, cuts: list[int]) -> None:
    """Whatever a model writes and wherever it is cut, only our own styles reach a terminal."""
    text, out, at = TerminalText(styled=True), "", 0
    for length in cuts:
        out += text.show(html[at : at + length])
        at += length
    out += text.show(html[at:]) + text.end()
    assert "\x1b" not in STYLES.sub("", out)
    assert harmless(STYLES.sub("", out)) == STYLES.sub("", out)


@given(st.lists(st.integers(1, 9), max_size=30))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    """An answer reads the same in whatever pieces it comes."""
    html = "<p>One &amp; <strong>two</strong>:</p><ul><li>a</li><li>b <em>c</em></li></ul><p>end.</p>"
    text, out, at = TerminalText(styled=True), "", 0
    for length in cuts:
        out += text.show(html[at : at + length])
        at += length
    assert out + text.show(html[at:]) + text.end() == shown(html, styled=True)


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    """A word does not wait for the end of its paragraph."""
    text = TerminalText(styled=False)
    assert text.show("<p>Hello") == "Hello"
    assert text.show(" wor") == " wor"
    assert text.show("ld</p>") == "ld"


def test_asides_are_harmless() -> None:
    """What is said dimly may come from elsewhere as well."""
    assert dim("a\x1b[1mb", styled=False) == "a�[1mb"
    assert dim("a", styled=True) == f"\x1b[2ma{RESET}"


def test_sources_are_shown_with_their_addresses() -> None:
    """The sources at the end of an answer stand on lines of their own, each with where it can be read."""
    cited = [
        Cited(number=2, passage_id="a", name="Reset & repair", url="https://docs.example/reset"),
        Cited(number=1, passage_id="b", name="limits.md"),
    ]
    text = TerminalText(styled=False)
    shown = text.show("<p>Hold it.</p>") + text.show(sources_html("Sources:", cited)) + text.end()
    assert shown == "Hold it.\n\nSources: [2] Reset & repair (https://docs.example/reset), [1] limits.md"
