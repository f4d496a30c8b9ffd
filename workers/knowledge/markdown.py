"""Markdown as blocks: rendered as any site would, then read as its visitor would."""

import html
import re
from collections.abc import Sequence
from typing import Any, Final

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from workers.knowledge.blocks import Outline
from workers.knowledge.webpage import read_html

_FRONT: Final = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MARKS: Final = re.compile(r"^[ \t]*:::+[ \t]*[\w-]*(?:\[(.*)\]|[ \t](.*))?$", re.MULTILINE)
"""Fences of notes and tips (`:::tip Look twice`), which many site generators know and CommonMark does not."""
_INLINE: Final = frozenset(
    {
        *("a", "abbr", "b", "bdi", "bdo", "br", "cite", "code", "del", "dfn", "em", "i", "img", "ins", "kbd", "mark"),
        *("q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "u", "var", "wbr"),
    }
)
_TAG: Final = re.compile(r"</?([a-zA-Z][\w-]*)")


def read_markdown(text: str) -> Outline:
    """Return the blocks of CommonMark with tables; the title of its front matter wins."""
    title = ""
    if (front := _FRONT.match(text)) is not None:
        title, text = _title(front[1]), text[front.end() :]
    rendered: str = _RENDERER.render(_MARKS.sub(r"\n\1\2\n", text))
    outline = read_html(f"<body>{rendered}</body>")
    outline.title = title or outline.title
    return outline


def _title(front: str) -> str:
    try:
        read: Any = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    title = read.get("title") if isinstance(read, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return " ".join(title.split()) if isinstance(title, str) else ""


def _placeholder(renderer: object, tokens: Sequence[Token], place: int, options: object, environment: object) -> str:
    """Return inline HTML as it is where it is some, and what only looks like it (`<your-key>`) as text."""
    written = tokens[place].content
    tag = _TAG.match(written)
    if tag is None:
        return ""
    name = tag[1].lower()
    whole = name in _INLINE or any(token.content.lower().startswith(f"</{name}") for token in tokens)
    return written if whole else html.escape(written)


_RENDERER: Final = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_RENDERER.add_render_rule("html_inline", _placeholder)
