"""The words behind the redaction: read once from `rules.yaml`, with a version."""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

_WORDS: Final = re.compile(r"(?<![\w\[-])[^\W\d_][\w-]*")


class NameCues(BaseModel):
    """What stands before a name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strong: tuple[str, ...]
    weak: tuple[str, ...]


class Rules(BaseModel):
    """The file as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    regions: tuple[str, ...]
    phone_cues: tuple[str, ...]
    other_numbers: tuple[str, ...]
    version_words: tuple[str, ...]
    id_cues: dict[str, tuple[str, ...]]
    name_cues: NameCues
    street_words: tuple[str, ...]
    no_names: frozenset[str]
    particles: frozenset[str]


@cache
def rules() -> Rules:
    """Return the rules shipped with the package.

    Raises:
        ValidationError: the file does not fit.
    """
    raw = resources.files("infra.redaction").joinpath("rules.yaml").read_text(encoding="utf-8")
    return Rules.model_validate(yaml.safe_load(raw))


def any_of(words: Iterable[str]) -> str:
    """Return a pattern for any of these words, the longest first; white space between them is any."""
    longest = sorted(set(words), key=len, reverse=True)
    return "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in longest)


class Cues:
    """Words that say what the number after them is."""

    def __init__(self, words: Iterable[str], *, within: int) -> None:
        self._within = within
        self._words = frozenset(word for word in words if " " not in word)
        self._phrases = tuple(word for word in words if " " in word)

    def before(self, text: str, at: int) -> bool:
        """Tell whether one of them stands shortly before a place, on the same line.

        A word in brackets is a placeholder of ours and no cue, so that redacting twice changes nothing.
        """
        near = text[max(0, at - self._within) : at].rpartition("\n")[2].lower()
        found = _WORDS.findall(near)
        return not self._words.isdisjoint(found) or any(phrase in near for phrase in self._phrases)
