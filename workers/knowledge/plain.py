"""Plain text as blocks: one for each paragraph."""

import re
from typing import Final

from workers.knowledge.blocks import Outline

_GAP: Final = re.compile(r"\n[ \t]*\n+")


def read_plain(text: str) -> Outline:
    """Return the paragraphs of a text, their lines kept."""
    outline = Outline()
    for paragraph in _GAP.split(text):
        outline.add(paragraph)
    return outline.end()
