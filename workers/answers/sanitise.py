"""Model HTML made safe while it streams: every prefix of the output is whole, allowed and final.

The stream is taken apart as a browser's tokenizer would and written anew from an allow-list, so nothing of
the input's markup survives by itself. It is written in the one form that a browser's parser gives back
unchanged, which makes every prefix plus `closers()` a fixed point of `nh3` with the same allow-list.
"""

import html as references
import re
from bisect import bisect_left
from html.entities import html5
from typing import Final, Literal, TypedDict

import nh3

from workers.guardrails.links import LinkRule, any_link, no_link

MAX_TAG_CHARS: Final = 2_048
MAX_OPEN_ELEMENTS: Final = 48

LINK_REL: Final = "noopener noreferrer nofollow"
_LISTS: Final = frozenset({"ul", "ol"})
_HEADINGS: Final = frozenset({"h3", "h4"})
_BLOCKS: Final = frozenset({"p", "li", "pre", "blockquote"}) | _LISTS | _HEADINGS
_INLINE: Final = frozenset({"a", "strong", "em", "b", "i", "code"})
_CONTENT_IS_TEXT: Final = frozenset(
    {"script", "style", "iframe", "textarea", "title", "noscript", "noembed", "noframes", "xmp"}
)
_CONTENT_IS_MARKUP: Final = frozenset(
    {"svg", "math", "template", "object", "applet", "audio", "video", "canvas", "select", "frameset"}
)


class AllowList(TypedDict):
    """Keyword arguments of `nh3.clean`."""

    tags: set[str]
    attributes: dict[str, set[str]]
    url_schemes: set[str]
    url_relative: Literal["deny"]
    link_rel: str


ALLOWED: Final = AllowList(
    tags={"br", *_BLOCKS, *_INLINE},
    attributes={"a": {"href"}},
    url_schemes={"https"},
    url_relative="deny",
    link_rel=LINK_REL,
)
_JUDGE: Final = nh3.Cleaner(**ALLOWED)

_NOISE_CHARS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff"
_NOISE: Final = re.compile(f"[{_NOISE_CHARS}]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPECIAL: Final = re.compile(f"[<>&\xa0{_NOISE_CHARS}]")
_MARK: Final = re.compile("[<&]")
_TAG: Final = re.compile(
    r"""
    <(/?)([a-zA-Z][^\t\n />]*+)
    ((?:[\t\n /]++
      | [^\t\n />][^\t\n />=]*+  # an attribute's name, which may begin with =, and its value if it has one
        (?:[\t\n ]*+=[\t\n ]*+(?:"[^"]*+"|'[^']*+'|(?!["'])[^\t\n >]*+)|(?![\t\n ]*+=))
    )*+)>
    """,
    re.VERBOSE,
)
_ATTRIBUTE: Final = re.compile(
    r"""([^\t\n /][^\t\n /=]*+)(?:[\t\n ]*+=[\t\n ]*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n ]*+)))?+"""
)
_TAG_END: Final = re.compile(">")
_COMMENT_END: Final = re.compile("--!?>")
_CDATA_END: Final = re.compile("]]>")
_END_CHARS: Final = 3  # so many characters at the end of a delta may begin one of the three above
_CDATA: Final = "[CDATA["
_REFERENCE: Final = re.compile(r"&(?:#(?:[xX][0-9a-fA-F]{0,30}+|[0-9]{0,30}+)|[A-Za-z][A-Za-z0-9]{0,31}+)?+;?")
_LONGEST_REFERENCE: Final = 34
_REFERENCE_NAMES: Final = sorted(html5)
_IN_ATTRIBUTE: Final = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|([A-Za-z][A-Za-z0-9]*+(?:;|(?![=A-Za-z0-9]))))")
_LINK: Final = re.compile(r"https://(?P<authority>[^/?#]+)", re.IGNORECASE)
_QUOTED: Final = {'"': "%22", "<": "%3C", ">": "%3E", "`": "%60"}


class HtmlStream:
    """An incremental sanitiser: text of a reply in, HTML out that may be appended to what is already shown.

    Plain text passes at once; held back is only what may be an unfinished tag (at most MAX_TAG_CHARS),
    reference or end of a comment. Inline elements end where a block begins; an item without a list gets one.
    A link whose address `links` does not allow is left out, its text is kept.
    """

    def __init__(self, *, links: LinkRule = no_link) -> None:
        self._links = links
        self._quick = True  # nothing is pending: text without special characters may pass as it is
        self._held = ""
        self._in_tag = False  # what is held is a tag, which only a ">" can complete
        self._after_return = False
        self._skipping: re.Pattern[str] | None = None  # inside a comment or the like: what ends it
        self._dropping = ""  # inside an element whose content is dropped: its name
        self._dropping_depth = 0
        self._open: list[str] = []
        self._implied: set[int] = set()  # depths of lists that were opened for an item without one
        self._pre_begins = False  # a parser ignores a line feed right after <pre>
        self._out: list[str] = []

    @property
    def held(self) -> int:
        """How many characters wait for the next delta."""
        return len(self._held)

    def feed(self, text: str) -> str:
        """Return sanitised HTML for `text` as far as it is certain: whole tags, characters and references."""
        if self._quick and not _SPECIAL.search(text):
            return text
        text = self._normalised(text)
        if self._in_tag and ">" not in text and len(self._held) + len(text) < MAX_TAG_CHARS:
            self._held += text
            return ""
        self._read(self._held + text)
        return self._taken()

    def closers(self) -> str:
        """Return the end tags that make what was returned so far a whole document."""
        return "".join(f"</{name}>" for name in reversed(self._open))

    def finish(self) -> str:
        """Return what was held back, as far as it is text, and the end tags of all open elements."""
        held, self._held, self._in_tag = self._held, "", False
        if self._skipping is None and (held == "<" or held.startswith("&")):
            self._text(_without_noise(references.unescape(held)))
        self._close_to(0)
        return self._taken()

    def _taken(self) -> str:
        pending = self._held or self._skipping or self._dropping or self._pre_begins or self._after_return
        self._quick = not (pending or self._in_implied_list)
        fresh = "".join(self._out)
        self._out.clear()
        return fresh

    def _normalised(self, text: str) -> str:
        if not self._after_return and not _NOISE.search(text):
            return text
        if self._after_return and text:
            text, self._after_return = text.removeprefix("\n"), False
        self._after_return = self._after_return or text.endswith("\r")
        return _without_noise(text)

    # The tokenizer: each method takes text and a position and returns the next position.

    def _read(self, text: str) -> None:
        self._held, self._in_tag = "", False
        at, end = 0, len(text)
        while at < end:
            at = self._content(text, at) if self._skipping is None else self._skip(text, at, self._skipping)

    def _hold(self, text: str, at: int, *, in_tag: bool = False) -> int:
        self._held, self._in_tag = text[at:], in_tag
        return len(text)

    def _skip(self, text: str, at: int, end: re.Pattern[str]) -> int:
        found = end.search(text, at)
        if found is None:
            return self._hold(text, max(at, len(text) - _END_CHARS))
        self._skipping = None
        return found.end()

    def _skip_to(self, end: re.Pattern[str], at: int) -> int:
        self._skipping = end
        return at

    def _content(self, text: str, at: int) -> int:
        mark = text.find("<", at) if self._dropping else _first_mark(text, at)
        if mark < 0:
            self._text(text[at:])
            return len(text)
        if mark > at:
            self._text(text[at:mark])
        if text[mark] == "&":
            return self._reference(text, mark)
        if self._dropping in _CONTENT_IS_TEXT:
            return self._end_of_raw_text(text, mark)
        return self._markup(text, mark)

    def _reference(self, text: str, at: int) -> int:
        found = _REFERENCE.match(text, at)
        reference = "&" if found is None else found[0]
        end = at + len(reference)
        if end == len(text) and _may_grow(reference):
            return self._hold(text, at)
        self._text(_without_noise(references.unescape(reference)))
        return end

    def _markup(self, text: str, at: int) -> int:
        following = text[at + 1 : at + 3]
        if following in ("", "/"):
            return self._hold(text, at)
        if _is_letter(following[0]) or (following[0] == "/" and _is_letter(following[1])):
            return self._tag(text, at)
        if following[0] == "!":
            return self._declaration(text, at)
        if following[0] in "/?":
            return self._skip_to(_TAG_END, at + 2)
        self._text("<")
        return at + 1

    def _declaration(self, text: str, at: int) -> int:
        body = text[at + 2 : at + 2 + len(_CDATA)]
        if "--".startswith(body) and body != "--":
            return self._hold(text, at)
        if body.startswith("--"):
            return self._comment(text, at)
        if body == _CDATA:
            return self._skip_to(_CDATA_END, at + 2 + len(_CDATA))
        if _CDATA.startswith(body):
            return self._hold(text, at)
        return self._skip_to(_TAG_END, at + 2)

    def _comment(self, text: str, at: int) -> int:
        body = text[at + 4 : at + 6]
        if body in ("", "-"):
            return self._hold(text, at)
        if body.startswith(">"):
            return at + 5
        if body == "->":
            return at + 6
        return self._skip_to(_COMMENT_END, at + 4)

    def _end_of_raw_text(self, text: str, at: int) -> int:
        wanted = f"</{self._dropping}"
        found = text[at : at + len(wanted) + 1].lower()
        if wanted.startswith(found):
            return self._hold(text, at)
        if found.startswith(wanted) and found[-1] in "\t\n />":
            return self._tag(text, at)
        return at + 1

    def _tag(self, text: str, at: int) -> int:
        ends = text.find(">", at, at + MAX_TAG_CHARS) > 0
        tag = _TAG.match(text, at, at + MAX_TAG_CHARS) if ends else None
        if tag is not None:
            self._apply(tag)
            return tag.end()
        if len(text) - at < MAX_TAG_CHARS:
            return self._hold(text, at, in_tag=True)
        self._text("<")
        return at + 1

    # The tree: what is open, and what a text or a tag does to it.

    def _text(self, text: str) -> None:
        if self._dropping:
            return
        if self._pre_begins:
            text = text.lstrip("\n")
        if not text:
            return
        if self._in_implied_list:
            text = self._leave_implied_list(text)
        self._pre_begins = False
        self._out.append(_escaped(text))

    def _leave_implied_list(self, text: str) -> str:
        """Leave white space between items in the list; other text ends it."""
        rest = text.lstrip()
        if rest:
            self._out.append(_escaped(text[: len(text) - len(rest)]))
            self._pop()
        return rest or text

    def _apply(self, tag: re.Match[str]) -> None:
        name = tag[2].lower()
        if self._dropping:
            self._nest_dropped(name, tag)
        elif tag[1]:
            self._end(name)
        else:
            self._start(name, tag)

    def _nest_dropped(self, name: str, tag: re.Match[str]) -> None:
        if name != self._dropping:
            return
        if tag[1]:
            self._dropping_depth -= 1
        elif not tag[3].endswith("/"):
            self._dropping_depth += 1
        if not self._dropping_depth:
            self._dropping = ""

    def _start(self, name: str, tag: re.Match[str]) -> None:
        if name in _BLOCKS:
            self._start_block(name)
        elif name in _INLINE:
            self._start_inline(name, tag[3])
        elif name == "br":
            self._break()
        elif name in _CONTENT_IS_TEXT or (
            name in _CONTENT_IS_MARKUP and not (name in ("svg", "math") and tag[3].endswith("/"))
        ):
            self._dropping, self._dropping_depth = name, 1

    def _end(self, name: str) -> None:
        if name == "br":
            self._break()
            return
        wanted = _HEADINGS if name in _HEADINGS else (name,)
        barrier = _LISTS if name == "li" else ()
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth] in wanted:
                self._close_to(depth)
                return
            if self._open[depth] in barrier:
                return

    def _start_block(self, name: str) -> None:
        while self._open and (self._open[-1] in _INLINE or self._open[-1] in ("p", *_HEADINGS)):
            self._pop()
        if name == "li":
            self._start_item()
            return
        if self._in_implied_list:
            self._pop()
        self._push(name, f"<{name}>")

    def _start_item(self) -> None:
        if self._open and self._open[-1] == "li":
            self._pop()
        if len(self._open) + 2 > MAX_OPEN_ELEMENTS:
            return
        if not self._open or self._open[-1] not in _LISTS:
            self._push("ul", "<ul>")
            self._implied.add(len(self._open))
        self._push("li", "<li>")

    def _start_inline(self, name: str, attributes: str) -> None:
        markup = _link(attributes, self._links) if name == "a" else f"<{name}>"
        if not markup:
            return
        if name == "a":
            self._end("a")
        if self._in_implied_list:
            self._pop()
        self._push(name, markup)

    def _break(self) -> None:
        if self._in_implied_list:
            self._pop()
        self._pre_begins = False
        self._out.append("<br>")

    @property
    def _in_implied_list(self) -> bool:
        return len(self._open) in self._implied

    def _push(self, name: str, markup: str) -> None:
        if len(self._open) < MAX_OPEN_ELEMENTS:
            self._open.append(name)
            self._out.append(markup)
            self._pre_begins = name == "pre"

    def _close_to(self, depth: int) -> None:
        while len(self._open) > depth:
            self._pop()

    def _pop(self) -> None:
        self._implied.discard(len(self._open))
        self._out.append(f"</{self._open.pop()}>")
        self._pre_begins = False


def to_text(html: str) -> str:
    """Return the plain text of any HTML: no tags; breaks, blocks and list items begin new lines."""
    stream = HtmlStream(links=any_link)
    clean = stream.feed(html) + stream.finish()
    lines = re.sub(r"<br>|<li>|</?(?:p|ul|ol|pre|blockquote|h3|h4)>", "\n", clean)
    text = references.unescape(re.sub(r"<[^>]*>", "", lines)).replace("\xa0", " ")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


def _first_mark(text: str, at: int) -> int:
    found = _MARK.search(text, at)
    return -1 if found is None else found.start()


def _is_letter(char: str) -> bool:
    return char.isascii() and char.isalpha()


def _escaped(text: str) -> str:
    if _SPECIAL.search(text):
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\xa0", "&nbsp;")
    return text


def _without_noise(text: str) -> str:
    """Line ends become line feeds, form feeds spaces, lone surrogates U+FFFD; other control characters go."""
    if not _NOISE.search(text):
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " ")
    return _NOISE.sub("", _SURROGATE.sub("\ufffd", text))


def _may_grow(reference: str) -> bool:
    """Tell whether more text could make another reference of this one."""
    body = reference[1:]
    if body.endswith(";") or len(reference) >= _LONGEST_REFERENCE:
        return False
    if body == "" or body.startswith("#"):
        return True
    longer = bisect_left(_REFERENCE_NAMES, body + "\0")
    return longer < len(_REFERENCE_NAMES) and _REFERENCE_NAMES[longer].startswith(body)


def _link(attributes: str, allowed: LinkRule) -> str:
    """Return the start tag of a link, or nothing where the address is missing or not allowed."""
    found = (match for match in _ATTRIBUTE.finditer(attributes) if match[1].lower() == "href")
    href = next(found, None)
    if href is None:
        return ""
    address = _address(href[2] or href[3] or href[4] or "")
    start = f'<a href="{_escaped(address)}" rel="{LINK_REL}">'
    return start if address and allowed(address) and _JUDGE.clean(f"{start}</a>") == f"{start}</a>" else ""


def _address(value: str) -> str:
    """Return an https address without credentials in it, or nothing."""
    decoded = _without_noise(_IN_ATTRIBUTE.sub(_attribute_reference, value)).strip()
    address = re.sub(r"[\t\n]", "", decoded)
    address = re.sub(r"\s", "%20", re.sub('["<>`]', lambda char: _QUOTED[char[0]], address))
    link = _LINK.match(address)
    if link is None or "\\" in address or "@" in link["authority"]:
        return ""
    return address


def _attribute_reference(found: re.Match[str]) -> str:
    name = found[1]
    return found[0] if name is not None and name not in html5 else references.unescape(found[0])
