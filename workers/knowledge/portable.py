"""PDF as blocks: the text of each page."""

import logging
import re
from io import BytesIO
from typing import Final

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError

from workers.knowledge.blocks import Outline, Unreadable

MOST_PAGES: Final = 1_000

_CUT_WORD: Final = re.compile(r"(?<=[^\W\d_])-\n(?=[a-zß-ÿ])")
_GAP: Final = re.compile(r"\n[ \t]*\n+")

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of each odd byte; we tell of the file


def read_pdf(raw: bytes) -> Outline:
    """Return the text of each page below `Page N`.

    Raises:
        Unreadable: it is broken, encrypted, too long, or has no text.
    """
    try:
        reader = _opened(raw)
        outline = Outline()
        for number, page in enumerate(reader.pages, 1):
            text = _CUT_WORD.sub("", page.extract_text())
            outline.heading(2, f"Page {number}")
            for paragraph in _GAP.split(text):
                outline.add(paragraph)
        title = (reader.metadata.title if reader.metadata is not None else None) or ""
    except Unreadable:
        raise
    except (FileNotDecryptedError, DependencyError):
        raise Unreadable("It is encrypted: save it without a password.") from None
    except Exception as error:
        raise Unreadable(f"It is broken, or no PDF ({type(error).__name__}): print or save it anew as PDF.") from error
    blocks = [block for block in outline.blocks if block.headings]
    if not blocks:
        raise Unreadable("It has no text in it: pages that were scanned need text recognition first.")
    return Outline(blocks=blocks, title=" ".join(title.split()))


def _opened(raw: bytes) -> PdfReader:
    reader = PdfReader(BytesIO(raw), strict=False)
    if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
        raise Unreadable("It is encrypted: save it without a password.")
    if (pages := len(reader.pages)) > MOST_PAGES:
        raise Unreadable(f"It has {pages:,} pages, and {MOST_PAGES:,} are read at most: split it.")
    return reader
