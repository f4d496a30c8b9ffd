"""The streaming sanitiser: every prefix of its output is whole, safe and final."""

import random
from collections.abc import Iterator

import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.answers.sanitise import ALLOWED, MAX_OPEN_ELEMENTS, MAX_TAG_CHARS, HtmlStream, to_text
from workers.guardrails.links import any_link

QUICK = settings(max_examples=250, deadline=None, database=None)
REL = 'rel="noopener noreferrer nofollow"'


def cleaned(*pieces: str) -> str:
    stream = HtmlStream(links=any_link)
    return "".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def pieces_of(document: str, seed: int, longest: int) -> Iterator[str]:
    source, at = random.Random(seed), 0
    while at < len(document):
        end = at + source.randint(1, longest)
        yield document[at:end]
        at = end


def assert_every_prefix_is_fixed(pieces: Iterator[str]) -> str:
    stream, shown = HtmlStream(links=any_link), ""
    for piece in pieces:
        shown += stream.feed(piece)
        whole = shown + stream.closers()
        assert nh3.clean(whole, **ALLOWED) == whole
    shown += stream.finish()
    assert nh3.clean(shown, **ALLOWED) == shown
    assert stream.closers() == ""
    return shown


CASES = {
    # text
    "plain\ntext\n\n with  spaces": "plain\ntext\n\n with  spaces",
    "a < b && c > d": "a &lt; b &amp;&amp; c &gt; d",
    "R&D, AT&T, 1<2, <3": "R&amp;D, AT&amp;T, 1&lt;2, &lt;3",
    "&lt;b&gt; &amp;lt; &eacute;&#233;&#xE9;&#128;&nosuch;": "&lt;b&gt; &amp;lt; ééé€&amp;nosuch;",
    "&copy2 &notit; &notin; &#; &#x; &": "©2 ¬it; ∉ &amp;#; &amp;#x; &amp;",
    "a\u00a0b&nbsp;c": "a&nbsp;b&nbsp;c",
    "a\r\nb\rc\0d\x1be\x85f\ufeffg": "a\nb\ncdefg",
    "\ud800x": "\ufffdx",
    # blocks
    "<p>a<p>b": "<p>a</p><p>b</p>",
    "<p>a<ul><li>b<li>c</ul>d": "<p>a</p><ul><li>b</li><li>c</li></ul>d",
    "<ul><li>a<ol><li>b</ol><li>c</ul>": "<ul><li>a<ol><li>b</li></ol></li><li>c</li></ul>",
    "<ul><li>a<ol></li><li>b": "<ul><li>a<ol><li>b</li></ol></li></ul>",
    "<li>a</li> <li>b</li>\nc": "<ul><li>a</li> <li>b</li>\n</ul>c",
    "<li>a</li>b<ul>c</ul>": "<ul><li>a</li></ul>b<ul>c</ul>",
    "<blockquote><li>a<p>b</blockquote>c": "<blockquote><ul><li>a<p>b</p></li></ul></blockquote>c",
    "<h3>a<h4>b<p>c</h3>": "<h3>a</h3><h4>b</h4><p>c</p>",
    "<h3>a</h4>b": "<h3>a</h3>b",
    "<pre>\n\n x\n</pre>": "<pre> x\n</pre>",
    "<pre><code>\na &lt; b</code></pre>": "<pre><code>\na &lt; b</code></pre>",
    # inline
    "<b>a<i>b</b>c</i>d": "<b>a<i>b</i></b>cd",
    "<b>a<p>b</b>c": "<b>a</b><p>bc</p>",
    "<p><em>a</p>b</em>": "<p><em>a</em></p>b",
    "<STRONG>a</Strong>": "<strong>a</strong>",
    "<p class=x style='y' onclick=z id=\"w\">a</p>": "<p>a</p>",
    "a<br>b<br/>c</br>d": "a<br>b<br>c<br>d",
    "</p></b></li></ul>a": "a",
    # links
    "<a href='https://e.com/?a=1&b=2'>x</a>": f'<a href="https://e.com/?a=1&amp;b=2" {REL}>x</a>',
    "<a target=_blank href=https://e.com>x</a>": f'<a href="https://e.com" {REL}>x</a>',
    '<a href="mailto:a@e.com" rel=opener>x</a><a href=http://e.com>y</a>': "xy",
    '<a href="https://e.com/?x=1&copy=2&amp;reg=3&lang;">x</a>': (
        f'<a href="https://e.com/?x=1&amp;copy=2&amp;reg=3\u27e8" {REL}>x</a>'
    ),
    '<a href=" https://e.com/a b\n<>">x</a>': f'<a href="https://e.com/a%20b%3C%3E" {REL}>x</a>',
    '<a href="https://a.b">x<a href="https://c.d">y</a>z': (
        f'<a href="https://a.b" {REL}>x</a><a href="https://c.d" {REL}>y</a>z'
    ),
    '<a href="/here">x</a><a href="//e.com">y</a><a>z</a>': "xyz",
    '<a href="https://bank.example@e.com/">x</a>': "x",
    '<a href="https://e.com\\@f.com/">x</a>': "x",
    '<a href="https://">x</a><a href="https://[">y</a><a href="https://e.com:99999">z</a>': "xyz",
    # dropped
    "a<script>b</script>c<style>d</style>e": "ace",
    "a<svg><b>x</b><svg>y</svg>z</svg>c<svg/>d": "acd",
    "a<title>b</TITLE >c<textarea><b></textarea>d": "acd",
    "a<script>if (1</script2) '</scriptx>' </script\n>c": "ac",
    "a<!-- <b>x</b> -- > --!>b<!-->c<!--->d<!doctype html>e<?xml ?>f<![CDATA[<b>]]>g</ x>h</>i": "abcdefghi",
    "<div>a</div><span>b</span><h1>c</h1><unknown-tag x>d": "abcd",
    "a<script>never closed <b>": "a",
    "a<b": "a",
    "a<": "a&lt;",
    "a&am": "a&amp;am",
    "a<!-- x": "a",
}


@pytest.mark.parametrize(("document", "expected"), list(CASES.items()))
def test_stream_writes_what_a_reader_would_expect(document: str, expected: str) -> None:
    """Each case comes out as written here, whole and however it is split in two or three."""
    assert cleaned(document) == expected
    assert nh3.clean(expected, **ALLOWED) == expected
    for first in range(len(document) + 1):
        assert cleaned(document[:first], document[first:]) == expected
        for second in range(first, len(document) + 1, 1 + len(document) // 25):
            assert cleaned(document[:first], document[first:second], document[second:]) == expected


FRAGMENTS = [
    *(f"<{slash}{name}>" for name in sorted(ALLOWED["tags"]) for slash in ("", "/")),
    *(
        f"<{slash}{name}>"
        for name in ("script", "style", "svg", "math", "template", "textarea", "title", "noscript", "select")
        for slash in ("", "/")
    ),
    *("<div>", "</div>", "<table>", "<td>", "<form>", "<h1>", "</h1>", "<plaintext>", "<svg/>", "<p/>", "<br/>"),
    *(
        '<a href="https://e.com/?a=1&b=2">',
        "<a href='mailto:a@b.c'>",
        "<a href=javascript:alert(1)>",
        "<a href=http://e>",
    ),
    *(
        "<!--",
        "-->",
        "--!>",
        "<!-->",
        "<![CDATA[",
        "]]>",
        "<?",
        "<!doctype html>",
        "</",
        "<",
        ">",
        "<x",
        "<a ",
        "href=",
    ),
    *(
        '"https://a.b"',
        '"',
        "'",
        "=",
        "/",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\0",
        "\x0c",
        "\x85",
        "\ufeff",
        "\u00a0",
        "\U0001f600",
    ),
    *(
        "&",
        "&amp;",
        "&lt;",
        "&#x3c;",
        "&#60",
        "&#0;",
        "&#128;",
        "&notin",
        "&copy",
        "&#",
        "&#x",
        "it;",
        "1",
        "text",
        "javascript:",
    ),
]


@QUICK
@given(
    document=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join),
    seed=st.integers(0, 10_000),
    longest=st.sampled_from([1, 3, 12]),
)
def test_every_prefix_is_a_fixed_point_of_the_allow_list(document: str, seed: int, longest: int) -> None:
    """Whatever the input and its split, each prefix with its closers passes nh3 unchanged, and the end is the same."""
    shown = assert_every_prefix_is_fixed(pieces_of(document, seed, longest))
    assert shown == cleaned(document)


@QUICK
@given(document=st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))
def test_clean_html_passes_the_stream_unchanged(document: str) -> None:
    """What the stream wrote once it writes again, character for character."""
    once = cleaned(document)
    assert cleaned(once) == once


def test_plain_text_flows_at_once() -> None:
    """Text without markup is returned by the call that brought it, as the same object."""
    stream = HtmlStream(links=any_link)
    for piece in ("Hello ", "wide\nworld", " \u2014 caf\u00e9"):
        assert stream.feed(piece) is piece
    assert stream.feed("<p>One ") == "<p>One "
    assert stream.feed("two") == "two"
    assert stream.held == 0


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["1 <", " 2"], ["1 ", "&lt; 2"]),
        (["a<st", "rong", ">b"], ["a", "", "<strong>b"]),
        (["R&", "D x", "y"], ["R", "", "&amp;D xy"]),
        (["R&Dxx", "y"], ["R&amp;Dxx", "y"]),
        (["a\r", "\nb"], ["a\n", "b"]),
        (["<pre>", "\n", "x"], ["<pre>", "", "x"]),
    ],
)
def test_stream_holds_back_only_what_is_undecided(pieces: list[str], shown: list[str]) -> None:
    """Each delta yields everything that no later delta can change."""
    stream = HtmlStream(links=any_link)
    got = [stream.feed(piece) for piece in pieces]
    assert "".join(got).startswith("".join(shown[:-1]))
    if pieces[0] != "R&":
        assert got == shown


@pytest.mark.parametrize("opening", ["<a ", "<p class='", '<x y="', "</p "])
def test_an_endless_tag_becomes_text_at_its_bound(opening: str) -> None:
    """A tag that does not end within the bound is text, whether it arrives at once or in pieces."""
    document = opening + "x" * (MAX_TAG_CHARS + 500)
    stream, shown, most = HtmlStream(links=any_link), "", 0
    for piece in pieces_of(document, 7, 9):
        shown += stream.feed(piece)
        most = max(most, stream.held)
    assert most <= MAX_TAG_CHARS
    shown += stream.finish()
    assert shown == cleaned(document)
    assert shown.startswith("&lt;")
    assert nh3.clean(shown, **ALLOWED) == shown


@pytest.mark.parametrize(
    "opening", ["<!--", "<script>", "<svg>", "<![CDATA[", "<?", "&#", "&#x", "&amp", "a<", "<pre>\n"]
)
@pytest.mark.parametrize("filler", ["x", "-", "<", "&", "1", "]", " "])
def test_long_replies_hold_back_a_bounded_piece(opening: str, filler: str) -> None:
    """Comments, dropped elements and references never make the stream keep more than its bound."""
    stream = HtmlStream(links=any_link)
    stream.feed(opening)
    for _ in range(6_000):
        stream.feed(filler)
        assert stream.held < MAX_TAG_CHARS


def test_nesting_is_bounded() -> None:
    """Elements beyond the bound are not opened, their text is kept, and the output stays a fixed point."""
    document = "<blockquote><ul><li><b><i>" * 40 + "deep" + "</li>" * 500
    shown = assert_every_prefix_is_fixed(pieces_of(document, 3, 200))
    assert shown.count("<") <= 2 * MAX_OPEN_ELEMENTS + 500
    assert "deep" in shown


@pytest.mark.parametrize("depth", [MAX_OPEN_ELEMENTS - 1, MAX_OPEN_ELEMENTS])
def test_an_item_that_would_nest_too_deep_is_plain_text(depth: int) -> None:
    """At the bound neither an item nor the list it would need is opened."""
    assert cleaned("<blockquote>" * depth + "<li>x") == "<blockquote>" * depth + "x" + "</blockquote>" * depth


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two<br>three</p>", "One\n\nTwo\nthree"),
        ("<h3>T</h3><ul><li>a</li><li><b>b</b></li></ul>end", "T\n\na\nb\nend"),
        ('<a href="https://e.com">1 &lt; 2 &amp;amp; 3</a>&nbsp;x', "1 < 2 &amp; 3 x"),
        ("<script>x</script>plain\ntext <b", "plain\ntext"),
        ("<pre>  a\n    b</pre>", "a\n    b"),
        ("", ""),
    ],
)
def test_to_text_keeps_words_and_lines(html: str, text: str) -> None:
    """Plain text has no tags, decoded references, and a line of its own for each block, item and break."""
    assert to_text(html) == text


@QUICK
@given(document=st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join))
def test_to_text_of_raw_and_of_clean_html_agree(document: str) -> None:
    """The text of an answer is the same whether it is taken before or after sanitising."""
    assert to_text(document) == to_text(cleaned(document))
