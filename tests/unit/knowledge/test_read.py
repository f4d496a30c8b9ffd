"""Bytes of every kind become documents."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from schemas.knowledge import Document, Piece
from workers.knowledge.blocks import Unreadable
from workers.knowledge.media import Media, of_name
from workers.knowledge.pieces import MOST
from workers.knowledge.read import digest, read

HERE = Path(__file__).parents
SHARED = next(
    (folder / "shared" for folder in HERE if (folder / "shared" / "data" / "kb").is_dir()), HERE[4] / "shared"
)
LONG = "This sentence is here so that the section is long enough to stand for itself, and says nothing else. "


def markdown(text: str) -> Document:
    return read(text.encode(), Media.MARKDOWN, source="docs/a.md")


def page(text: str) -> Document:
    return read(text.encode(), Media.HTML, source="https://site.test/a")


def texts(document: Document) -> str:
    return "\n".join(f"{piece.heading}\n{piece.text}" for piece in document.pieces)


def pdf(*pages: str, password: str | None = None, title: str | None = None) -> bytes:
    """A PDF with one line of text on each page."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        blank = writer.add_blank_page(width=600, height=800)
        content = DecodedStreamObject()
        lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        content.set_data(f"BT /F1 12 Tf 14 TL 50 700 Td {lines} ET".encode("latin-1"))
        blank[NameObject("/Contents")] = content
        blank[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    if title is not None:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def test_markdown_keeps_its_structure() -> None:
    """Headings, lists, tables and code come through; links and emphasis are their text; images and comments go."""
    document = markdown(
        "---\ntitle: 'Set up'\ntags: [a]\n---\n# Set up\n\nRead [the **guide**](https://x.test/g) first."
        " ![secret orders](x.png)\n\n<!-- obey me -->\n\n"
        "## Steps\n\n1. Open it.\n2. Choose:\n   - one\n   - two\n\n"
        ":::tip Take your time\nAnd look twice before you go on with anything that matters.\n:::\n\n"
        "### In code\n\n```sh\nmake up\n\n  fairlead chat <your-key>  # a comment that is long enough\n```\n\n"
        "| plan | price |\n|---|---|\n| One | 900 € |\n| | more |\n\n"
        "Use `<id>` or <your-id> &amp; go. x<br>y <b>z</b>\n"
    )
    assert (document.title, document.kind, document.source) == ("Set up", "document", "docs/a.md")
    assert document.pieces == (
        Piece(heading="", text="Read the guide first."),
        Piece(
            heading="Steps",
            text="1. Open it.\n2. Choose:\n  - one\n  - two\n\n"
            "Take your time\n\nAnd look twice before you go on with anything that matters.",
        ),
        Piece(
            heading="Steps > In code",
            text="make up\n\n  fairlead chat <your-key>  # a comment that is long enough\n\n"
            "plan | price\nOne | 900 €\n | more\n\nUse <id> or <your-id> & go. x\ny z",
        ),
    )


def test_a_page_is_what_its_visitor_reads() -> None:
    """Scripts, navigation, footers and forms are left out, and the main part is taken where one is marked."""
    document = page(
        "<html><head><title>T &amp; U</title><style>p{}</style></head>"
        "<body><nav>Menu</nav><header><h1>Prices</h1></header><p>One site   costs\n900 €.</p>"
        "<script>alert(1)</script><noscript>no</noscript><form><button>Buy</button></form>"
        "<ul><li>a<li>b<ul><li>c</ul></ul><pre>x = 1\n  y = 2</pre>"
        "<table><tr><th>plan<th>price<tr><td>One<td><p>900</p><p>€</p></table><dl><dt>Site<dd>A warehouse</dl>"
        "<footer>© Torvane</footer></body>"
    )
    assert document.title == "Prices"
    assert document.pieces == (
        Piece(
            text="One site costs 900 €.\n\n- a\n- b\n  - c\n\nx = 1\n  y = 2\n\nplan | price\nOne | 900 €\n\n"
            "- Site\n  A warehouse"
        ),
    )
    marked = page("<title>T</title><div>Menu</div><main><p>Only this.</p></main><div>More</div>")
    assert (marked.title, texts(marked)) == ("T", "\nOnly this.")


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>IGNORE</p>",
        "<p style='display:none'>IGNORE</p>",
        "<p style='DISPLAY : /* x */ none !important'>IGNORE</p>",
        "<p style='visibility: hidden'>IGNORE</p>",
        "<p style='opacity: 0.0; color: red'>IGNORE</p>",
        "<p style='font-size:0px'>IGNORE</p>",
        "<p style='position:absolute;left:-9999px'>IGNORE</p>",
        "<p style='width:0;height:0;overflow:hidden'>IGNORE</p>",
        "<p style='color: transparent'>IGNORE</p>",
        "<div aria-hidden='true'><div><p>IGNORE</p></div></div>",
        "<span class='x sr-only'>IGNORE</span>",
        "<!-- IGNORE -->",
        "<template>IGNORE</template>",
        "<img alt='IGNORE'>",
        "<a title='IGNORE' href='https://x.test/IGNORE'></a>",
        "<textarea>IGNORE</textarea>",
        "<svg><text>IGNORE</text></svg>",
        "<div role='navigation'>IGNORE</div>",
        "<main hidden>IGNORE</main>",
        "I&#8203;G&#x200B;NORE",
    ],
)
def test_hidden_text_is_not_read(hidden: str) -> None:
    """What a visitor cannot see is no part of the document, in HTML and in Markdown with HTML in it."""
    shown = "<h1>Title</h1>\n\n<p>Shown before it.</p>\n\n{}\n\n<p>Shown after it, and all of it.</p>"
    for document in (page(shown.format(hidden)), markdown(shown.format(hidden))):
        found = texts(document)
        assert "Shown before it." in found
        assert "Shown after it, and all of it." in found
        assert "IGNORE" not in found.replace("\u200b", "") or "#8203" in hidden
        assert "\u200b" not in found


@pytest.mark.parametrize("style", ["opacity:0.5", "left:-9px", "width:100%", "max-width:0.5em", "color:#000", "", ";"])
def test_visible_text_is_read(style: str) -> None:
    """Styles that hide nothing hide nothing."""
    assert "Shown" in texts(page(f"<p style='{style}'>Shown</p>"))


def test_hidden_html_hides_markdown_in_it() -> None:
    """An element that is opened in one block of Markdown and closed in a later one hides what is between."""
    document = markdown("Shown.\n\n<div style='display:none'>\n\nIGNORE all of this.\n\n</div>\n\nShown too.\n")
    assert texts(document) == "\nShown.\n\nShown too."


def test_depth_is_no_danger() -> None:
    """A page nested far deeper than Python's stack is read to its end."""
    assert "end" in texts(page("<div>" * 3_000 + "the end"))
    assert "end" in texts(page("<ul><li>" * 400 + "the end"))
    assert "end" in texts(markdown("> " * 5_000 + "the end\n\nend"))


def test_headings_without_text_are_kept() -> None:
    """A heading that nothing follows is text, so that nothing is lost."""
    assert texts(markdown("# T\n\n## Coming soon\n\n## Later\n")) == "\nComing soon\n\nLater"
    assert texts(markdown("# Only a title\n")) == "\nOnly a title"


def test_short_sections_are_told_together() -> None:
    """Sections that say little are told below the heading above them; a question keeps its short answer."""
    document = markdown("# Limits\n\n## Users\n\nAny number.\n\n## Sites\n\nFifty.\n\n## Is there an API?\n\nYes.\n")
    assert document.pieces == (
        Piece(text="Users: Any number.\n\nSites: Fifty."),
        Piece(heading="Is there an API?", text="Yes."),
    )


def test_a_charset_is_taken_from_the_page() -> None:
    """A page's own `meta` is believed where its server says nothing; the server's word wins."""
    raw = "<meta charset='iso-8859-1'><p>Grüße</p>".encode("latin-1")
    assert "Grüße" in texts(read(raw, Media.HTML, source="x"))
    with pytest.raises(Unreadable, match="UTF-8"):
        read(raw, Media.HTML, source="x", charset="utf-8")


def test_a_pdf_is_read_page_by_page() -> None:
    """Each page's text stands below its number, words cut at a line's end are whole, and the title is the file's."""
    document = read(pdf(f"{LONG}A ware-\nhouse counts.", LONG, title="Hand book"), Media.PDF, source="docs/manual.pdf")
    assert document.title == "Hand book"
    assert [piece.heading for piece in document.pieces] == ["Page 1", "Page 2"]
    assert "A warehouse counts." in document.pieces[0].text
    assert read(pdf(LONG), Media.PDF, source="docs/manual.pdf").title == "manual"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "broken"),
        (b"%PDF-1.7\nnothing", "broken"),
        (b"<html>not a pdf</html>", "broken"),
        (pdf(LONG, password="secret"), "encrypted"),
        (pdf("", ""), "no text in it"),
    ],
)
def test_a_pdf_that_cannot_be_read_is_told(raw: bytes, said: str) -> None:
    """A broken, encrypted or scanned file ends in one sentence."""
    with pytest.raises(Unreadable, match=said) as told:
        read(raw, Media.PDF, source="x.pdf")
    assert str(told.value).endswith(".")


def test_a_damaged_pdf_is_read_as_far_as_it_goes() -> None:
    """A file whose table of contents is wrong still has its pages."""
    assert "This sentence" in texts(read(pdf(LONG).replace(b" 00000 n", b"9 00000 n"), Media.PDF, source="x.pdf"))


def test_a_pdf_without_a_user_password_is_read() -> None:
    """A file that anybody may open is read though it is encrypted."""
    writer = PdfWriter(clone_from=BytesIO(pdf(LONG)))
    writer.encrypt("", owner_password="owner", algorithm="RC4-128")
    out = BytesIO()
    writer.write(out)
    assert "This sentence" in texts(read(out.getvalue(), Media.PDF, source="x.pdf"))


def test_a_long_pdf_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pages than are read at most is an error, not a part of the document."""
    monkeypatch.setattr("workers.knowledge.portable.MOST_PAGES", 2)
    with pytest.raises(Unreadable, match="It has 3 pages, and 2 are read at most"):
        read(pdf(LONG, LONG, LONG), Media.PDF, source="x.pdf")


def test_questions_are_answers() -> None:
    """JSON Lines and CSV become one piece for each answer, its question above; a long answer has several."""
    rows = [
        {"question": " Is there\nSSO? ", "answer": "Yes.\u0000 SAML.", "id": 7},
        {"question": "How?", "answer": LONG * 20},
    ]
    lines = read("\n\n".join(map(json.dumps, rows)).encode(), Media.QUESTIONS_JSONL, source="kb/faq.jsonl")
    assert (lines.kind, lines.title) == ("answer", "faq")
    assert lines.pieces[0] == Piece(heading="Is there SSO?", text="Yes. SAML.")
    assert {piece.heading for piece in lines.pieces[1:]} == {"How?"}
    assert len(lines.pieces) == 3
    for head, joint in (("ID;Question;Answer", ";"), ("answer,question,x", ","), ("question\tanswer", "\t")):
        values = {"id": "1", "question": "Is there SSO?", "answer": '"Yes; or, ""no""\nline"', "x": ""}
        row = joint.join(values[name.strip().lower()] for name in head.split(joint))
        table = read(f"\ufeff{head}\r\n{row}\r\n\r\n".encode(), Media.QUESTIONS_CSV, source="faq.csv")
        assert table.pieces == (Piece(heading="Is there SSO?", text='Yes; or, "no"\nline'),)


@pytest.mark.parametrize(
    ("raw", "media", "said"),
    [
        (b'{"question": "a", "answer": "b"}\n{', Media.QUESTIONS_JSONL, "Line 2 is no JSON"),
        (b'["a", "b"]', Media.QUESTIONS_JSONL, "no 'question' and"),
        (b'{"question": "a"}', Media.QUESTIONS_JSONL, "Line 1 lacks a text"),
        (b'{"question": 1, "answer": "b"}', Media.QUESTIONS_JSONL, "Line 1 lacks a text"),
        (b"[" * 100_000, Media.QUESTIONS_JSONL, "Line 1 is no JSON"),
        (b"", Media.QUESTIONS_JSONL, "no questions"),
        (b"", Media.QUESTIONS_CSV, "no columns"),
        (b"q,a\n1,2", Media.QUESTIONS_CSV, "no columns"),
        (b"question,answer\n", Media.QUESTIONS_CSV, "no questions"),
        (b"question,answer\nonly", Media.QUESTIONS_CSV, "Row 2 has too few"),
        (b"question,answer\n,b", Media.QUESTIONS_CSV, "Row 2 lacks a text"),
        (b'question,answer\n"a,b', Media.QUESTIONS_CSV, "is no CSV"),
        (b"question,answer\n" + b"x" * 501 + b",b", Media.QUESTIONS_CSV, "more than 500"),
        (b"<p>...</p>", Media.HTML, "no text"),
        (b"\n\n***\n", Media.MARKDOWN, "no text"),
        (b"GIF89a\0\xff", Media.TEXT, "NUL"),
        (b"<urlset/>", Media.SITEMAP, "only as a sitemap"),
    ],
)
def test_what_cannot_be_read_is_told(raw: bytes, media: Media, said: str) -> None:
    """Whatever is wrong with a document is one sentence that names the place."""
    with pytest.raises(Unreadable, match=said) as told:
        read(raw, media, source="x")
    assert str(told.value).endswith((".", "it."))


def test_an_endless_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pieces than a document may have is an error, not a part of the document."""
    monkeypatch.setattr("workers.knowledge.read.MOST_PIECES", 3)
    raw = "\n\n".join(f"{n} {'x' * 1_190}" for n in range(4)).encode()
    with pytest.raises(Unreadable, match="4 pieces, and 3 are the most"):
        read(raw, Media.TEXT, source="x.txt")


def test_a_document_is_known_by_its_bytes() -> None:
    """The digest is that of the bytes, and reading them twice gives the same document."""
    raw = (LONG * 40).encode()
    document = read(raw, Media.TEXT, source="a.txt")
    assert document.sha256 == digest(raw)
    assert document == read(raw, Media.TEXT, source="a.txt")


@pytest.mark.parametrize("folder", ["plausible", "retail-support"])
def test_real_documentation_is_read(folder: str) -> None:
    """A product's whole documentation becomes pieces within the limit, each with text, none twice in its document."""
    place = SHARED / "data" / "kb" / folder
    if not place.is_dir():
        pytest.skip("the shared knowledge bases are not here")
    files = sorted(place.glob("*.md"))
    for path in files:
        media = of_name(path.name)
        assert media is not None
        document = read(path.read_bytes(), media, source=path.name)
        assert document.title
        assert all(0 < len(piece.text) <= MOST for piece in document.pieces)
        assert len(set(document.pieces)) == len(document.pieces)
        words = {word for word in path.read_text(encoding="utf-8").split() if word.isalpha() and len(word) > 3}
        kept = f"{document.title} {texts(document)}"
        missing = {word for word in words if word not in kept}
        assert len(missing) <= 0.03 * len(words) + 2, path.name
