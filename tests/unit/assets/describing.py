"""Descriptions of diagrams, plain and hostile."""

from typing import Any

from hypothesis import strategies as st

HOSTILE = (
    '"]; click n1 "javascript:alert(1)"',
    "%%{init: {'securityLevel': 'loose'}}%%",
    "a\n  click n1 call steal()",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "]]></title></text></svg><svg onload='x'>",
    "&lt;b&gt; &#60; &amp;amp; #quot; #35;",
    "`**bold** [link](https://evil.example)`",
    "end",
    "1. a list",
    "style a:b #fff;",
    "\u202egnp.exe",
    "nul\x00 bell\x07 esc\x1b[31m del\x7f c1\x9b",
    "lone \ud800 surrogate",
    "{{x}} ((x)) |x| --> x --- :::c @{ shape: x }",
    "ﬂ°°60¶ß",
    "line\u2028separator\u2029",
    "取引先に請求書を送る",
    "שלום",
    "e\u0301\u0301\u0301",
)

labels = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec=None), min_size=1, max_size=120),
    st.text("\"#;[](){}|<>&%`'\\/-=.:~@\n \x00ab1", min_size=1, max_size=60),
)


@st.composite
def described(draw: st.DrawFn, most: int = 12) -> dict[str, Any]:
    """A sound graph with labels of any kind; a label may have nothing visible."""
    count = draw(st.integers(1, most))
    ways = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=20))
    return {
        "title": draw(labels),
        "nodes": [{"id": f'{n}"end', "label": draw(labels)} for n in range(count)],
        "edges": [
            {"from": f'{a}"end', "to": f'{b}"end', "label": draw(st.one_of(st.none(), labels))}
            for a, b in sorted(ways)
            if a != b
        ],
        "direction": draw(st.sampled_from(["TB", "LR"])),
    }
