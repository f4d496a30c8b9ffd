"""Bytes become text."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.knowledge.blocks import Unreadable
from workers.knowledge.characters import decoded, visible


@pytest.mark.parametrize(
    ("raw", "charset", "text"),
    [
        ("Grüße".encode(), None, "Grüße"),
        ("Grüße".encode(), "UTF-8", "Grüße"),
        ("Grüße".encode("cp1252"), None, "Grüße"),
        ("“x” 5 €".encode("cp1252"), "iso-8859-1", "“x” 5 €"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        (codecs.BOM_UTF8 + "Grüße".encode(), "iso-8859-1", "Grüße"),
        ("Grüße".encode("utf-16"), None, "Grüße"),
        (codecs.BOM_UTF16_BE + "Grüße".encode("utf-16-be"), "utf-8", "Grüße"),
        ("Grüße".encode("utf-32"), None, "Grüße"),
        (b"", None, ""),
    ],
)
def test_a_charset_is_told_or_plain(raw: bytes, charset: str | None, text: str) -> None:
    """A mark at the start wins, then the charset that is told, then UTF-8, then windows-1252."""
    assert decoded(raw, charset) == text


@pytest.mark.parametrize(
    ("raw", "charset", "said"),
    [
        (b"a\xffb", "utf-8", "should be UTF-8"),
        (b"abc", "klingon", "not known"),
        (b"abc", "rot13", "not known"),
        (b"abc", "zlib", "not known"),
        (b"\x89PNG\r\n\x1a\n\0\0", None, "no text"),
        (b"a\x81b", None, "neither UTF-8"),
        (b"\xff\xfea", None, "should be utf-16"),
        (b"\xd8\x00", "utf-16-be", "should be utf-16-be"),
    ],
)
def test_what_is_no_text_is_told(raw: bytes, charset: str | None, said: str) -> None:
    """Wrong and unknown charsets and binary data are refused in a sentence, and nothing is guessed."""
    with pytest.raises(Unreadable, match=said):
        decoded(raw, charset)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\0b\x07c\x1b[31m", "abc[31m"),
        ("ig\u200bno\u2060re\ufeff", "ignore"),
        ("p\u00adrice\u200e\u202e", "price"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all"), "hi"),
        ("x" + "".join(chr(0xE0100 + c) for c in range(20)), "x"),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("10\u00a0000\u202f€\tx", "10 000 €\tx"),
        ("e\u0301", "é"),
        ("o\u200dk \u200c", "ok "),
        ("\ud800x\ue000", "x"),
        ("نمی\u200cخواهم", "نمی\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_only_what_is_seen_is_kept(text: str, seen: str) -> None:
    """Controls, zero-width characters, tags and marks of direction go; joiners stay where a script needs them."""
    assert visible(text) == seen


@settings(max_examples=25)
@given(st.text())
def test_cleaning_is_done_once(text: str) -> None:
    """Cleaned text is clean: cleaning it again changes nothing, and PostgreSQL takes it."""
    once = visible(text)
    assert visible(once) == once
    assert "\0" not in once
    once.encode()
