"""Words of visitors' languages, as the patterns of `patterns.yaml`."""

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Final

import yaml
from pydantic import TypeAdapter

_PATTERNS: Final = TypeAdapter(dict[str, list[str]])


def pattern(name: str) -> re.Pattern[str]:
    """Return what finds any of the patterns of `name` in a text in lower case, each at the beginning of a word.

    Raises:
        KeyError: the file has none of that name.
    """
    return re.compile(rf"(?<!\w)(?:{'|'.join(_read()[0][name])})")


def digest() -> str:
    """Return what changes whenever a pattern does."""
    return _read()[1]


def significant(text: str) -> frozenset[str]:
    """Return the words of a text that say what it is about: those of three letters or more, in lower case."""
    return frozenset(word for word in re.findall(r"\w+", text.lower()) if len(word) > 2)


@cache
def _read() -> tuple[dict[str, list[str]], str]:
    raw = resources.files("workers.orchestrator").joinpath("patterns.yaml").read_bytes()
    return _PATTERNS.validate_python(yaml.safe_load(raw)), hashlib.sha256(raw).hexdigest()[:8]
