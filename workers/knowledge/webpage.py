"""HTML as blocks: what a visitor of the page would read, without what surrounds it and without what is hidden."""

import re
from collections.abc import Iterator
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from workers.knowledge.blocks import BlockKind, Outline

_NOT_READ: Final = frozenset(
    {
        *("script", "style", "noscript", "template", "nav", "footer", "head", "title", "meta", "link"),
        *("button", "input", "select", "textarea", "datalist", "dialog", "menu"),
        *("svg", "math", "canvas", "iframe", "object", "embed", "video", "audio", "map", "img", "picture"),
    }
)
_ROLES: Final = frozenset({"navigation", "search", "menu", "menubar", "banner", "contentinfo", "dialog", "alertdialog"})
_HIDING_CLASSES: Final = frozenset({"sr-only", "visually-hidden", "visuallyhidden", "screen-reader-text", "hidden"})
_HIDING_STYLE: Final = re.compile(
    r"display:none|visibility:(?:hidden|collapse)|opacity:0*\.?0*(?:;|%|!|$)|font-size:0*\.?0*(?:px|pt|r?em|%)?(?:;|!|$)"
    r"|(?:text-indent|left|top|right|margin-left|margin-top):-\d{3,}|(?:^|;)(?:max-)?(?:height|width):0(?:px)?(?:;|!|$)"
    r"|(?:^|;)color:transparent|clip:rect\(0|clip:rect\(1px|clip-path:inset\((?:50|100)%|transform:scale\(0",
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_LINES: Final = frozenset(
    {
        *("p", "div", "section", "article", "main", "header", "aside", "blockquote", "figure", "figcaption", "address"),
        *("details", "summary", "fieldset", "legend", "form", "hgroup", "body", "center", "caption"),
    }
)
_BLOCKS: Final = _LINES | _HEADINGS.keys() | {"pre", "table", "hr"}
_LISTS: Final = frozenset({"ul", "ol", "dl"})
_ITEMS: Final = frozenset({"li", "dt", "dd"})
_CELLS: Final = frozenset({"tr", "td", "th"})
_DEEPEST: Final = 6
"""How far items are indented."""
_SPACES: Final = re.compile(r"\s+")


def read_html(text: str) -> Outline:
    """Return the blocks of a page's main part, or of its whole body where none is marked."""
    tree = LexborHTMLParser(text)
    writer = _Writer()
    for root in _main(tree):
        for node, entering in _walk(root):
            writer.see(node, entering=entering)
    outline = writer.outline.end()
    if not outline.title:
        named = tree.css_first("head > title")
        outline.title = " ".join(named.text().split()) if named is not None else ""
    return outline


def links(text: str) -> list[str]:
    """Return the links of a page as they are written, each once."""
    found = (node.attributes.get("href") for node in LexborHTMLParser(text).css("a[href]"))
    return list(dict.fromkeys(link.strip() for link in found if link))


def _main(tree: LexborHTMLParser) -> list[LexborNode]:
    for selector in ("main", "[role=main]", "article"):
        marked = [node for node in tree.css(selector) if not _unread(node)]
        if len(marked) == 1:
            return marked
    return [tree.body] if tree.body is not None else []


def _unread(node: LexborNode) -> bool:
    """Whether an element is not part of what somebody reads: surroundings, or hidden."""
    if (node.tag or "") in _NOT_READ:
        return True
    given = node.attributes
    if not given:
        return False
    if "hidden" in given or (given.get("aria-hidden") or "").lower() == "true":
        return True
    if (given.get("role") or "").lower() in _ROLES or _HIDING_CLASSES & set((given.get("class") or "").lower().split()):
        return True
    style = re.sub(r"/\*.*?\*/|\s", "", given.get("style") or "", flags=re.DOTALL).lower()
    return bool(style) and _HIDING_STYLE.search(style) is not None


def _walk(root: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """Yield each node that is read, and each element again where it ends. Depth costs no stack."""
    open_nodes = [root]
    yield root, True
    following = root.first_child
    while open_nodes:
        if following is None:
            ended = open_nodes.pop()
            yield ended, False
            following = ended.next if open_nodes else None
        elif following.is_text_node:
            yield following, True
            following = following.next
        elif following.is_element_node and not _unread(following):
            yield following, True
            open_nodes.append(following)
            following = following.first_child
        else:
            following = following.next


class _Writer:
    """Writes text as it comes, and closes a block where the page does."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._text: list[str] = []
        self._lists: list[int | None] = []
        """The number of the last item of each open list; None where they have none."""
        self._tables = 0
        self._cells = 0
        """Of the row that is open."""
        self._verbatim = 0

    def see(self, node: LexborNode, *, entering: bool) -> None:
        """Take the next node, or the end of one."""
        tag = node.tag or ""
        if node.is_text_node:
            self._say(node.text_content or "")
        elif tag in _HEADINGS and not self._lists and not self._tables:
            self._heading(_HEADINGS[tag], entering=entering)
        elif tag in _LISTS:
            self._list(tag, entering=entering)
        elif tag in _BLOCKS:
            self._block(tag, entering=entering)
        elif entering:
            self._mark(tag)

    def _block(self, tag: str, *, entering: bool) -> None:
        match tag:
            case "pre":
                self._pre(entering=entering)
            case "table":
                self._table(entering=entering)
            case _:
                self._line()

    def _mark(self, tag: str) -> None:
        """Take an element that changes something where it begins only."""
        if tag in _ITEMS:
            self._item(tag)
        elif tag in _CELLS and self._tables:
            self._cell(tag)
        elif tag == "br":
            self._break()

    def _heading(self, level: int, *, entering: bool) -> None:
        if entering:
            self._close("prose")
        else:
            self.outline.heading(level, self._taken())

    def _say(self, text: str) -> None:
        if self._verbatim and not self._tables:
            self._text.append(text)
            return
        text = _SPACES.sub(" ", text)
        if not self._text or self._text[-1][-1:] in {"\n", " ", ""}:
            text = text.lstrip(" ")
        if text:
            self._text.append(text)

    def _break(self) -> None:
        if self._tables:
            self._say(" ")
        elif self._text:
            self._text.append("\n" + self._indent(len(self._lists)))

    def _line(self) -> None:
        if self._tables or self._verbatim:
            self._say(" ")
        elif self._lists:
            if not self._fresh():
                self._text.append("\n" + self._indent(len(self._lists)))
        else:
            self._close("prose")

    def _fresh(self) -> bool:
        """Whether nothing stands in the line yet, an item's mark apart."""
        line = "".join(self._text[-2:]).rpartition("\n")[2].strip()
        return line in {"", "-"} or re.fullmatch(r"\d+\.", line) is not None

    def _pre(self, *, entering: bool) -> None:
        if self._tables:
            self._say(" ")
        elif self._lists:
            self._text.append("\n")
        elif entering:
            self._close("prose")
        else:
            self._close("code")
        self._verbatim += 1 if entering else -1

    def _list(self, tag: str, *, entering: bool) -> None:
        if self._tables:
            self._say(" ")
        elif entering:
            if not self._lists:
                self._close("prose")
            self._lists.append(0 if tag == "ol" else None)
        elif self._lists:
            self._lists.pop()
            if not self._lists:
                self._close("list")

    def _item(self, tag: str) -> None:
        if self._tables or not self._lists:
            self._line()
            return
        depth = len(self._lists) - 1
        number = self._lists[-1]
        if number is not None:
            self._lists[-1] = number + 1
        mark = "  " if tag == "dd" else "- " if number is None else f"{number + 1}. "
        self._text.append("\n" + self._indent(depth) + mark)

    def _indent(self, depth: int) -> str:
        return "  " * min(depth, _DEEPEST)

    def _table(self, *, entering: bool) -> None:
        if entering:
            if not self._tables and not self._lists:
                self._close("prose")
            self._tables += 1
        else:
            self._tables -= 1
            if not self._tables and not self._lists:
                self._close("table")

    def _cell(self, tag: str) -> None:
        while self._text and self._text[-1] == " ":
            self._text.pop()
        if tag == "tr" or self._tables > 1:
            self._text.append("\n" if self._tables == 1 else " ")
            self._cells = 0
        else:
            self._text.append(" | " if self._cells else "")
            self._cells += 1

    def _close(self, kind: BlockKind) -> None:
        self.outline.add(self._taken(), kind)

    def _taken(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text
