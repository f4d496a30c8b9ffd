"""The dimensions discovery may ask about, read from their versioned file."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib import resources
from typing import Annotated, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.briefs import SignalKind

LANGUAGES: Final = ("en", "de", "fr", "es", "it")
"""In which every question is written; others are asked in the first."""

NEXT_STEPS: Final = "next_steps"
"""What is left to ask when every dimension is known or was asked; the one that may come again."""

Question = Annotated[str, Field(pattern=r"^[^?<>&]{10,119}\?$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Asked(_Frozen):
    means: str
    questions: dict[str, Question]

    @model_validator(mode="after")
    def _in_every_language(self) -> Self:
        if missing := [language for language in LANGUAGES if language not in self.questions]:
            raise ValueError(f"no question in {', '.join(missing)}")
        return self

    def question(self, language: str) -> str:
        """Return the question in a language, or in the first of `LANGUAGES` where there is none."""
        return self.questions.get(language) or self.questions[LANGUAGES[0]]


class Dimension(_Asked):
    """One thing to know about a buyer."""

    priority: int = Field(ge=1)
    signal: SignalKind | None = None
    """The buying signal that makes it urgent."""
    words: tuple[str, ...]
    tells: tuple[str, ...]

    @cached_property
    def urgent(self) -> re.Pattern[str]:
        """Matches words that make it urgent."""
        ways = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in self.words)
        return re.compile(rf"\b(?:{ways})\b", re.IGNORECASE)

    @cached_property
    def telling(self) -> re.Pattern[str]:
        """Matches what tells a fact about it."""
        return _any_of(self.tells)


class Taxonomy(_Frozen):
    """The whole of `taxonomy.yaml`."""

    version: int = Field(ge=1)
    dimensions: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]{2,31}$")], Dimension]
    next_steps: _Asked
    generic: tuple[str, ...]
    bleed: tuple[str, ...]
    digest: str = ""
    """Of the file; filled in on reading."""

    @property
    def name(self) -> str:
        """Return the version as facts keep it."""
        return f"taxonomy {self.version}-{self.digest}"

    @cached_property
    def saying_nothing(self) -> re.Pattern[str]:
        """Matches questions that ask for everything and so for nothing."""
        return _any_of(self.generic)

    @cached_property
    def bleeding(self) -> re.Pattern[str]:
        """Matches speech of an assistant or of a template."""
        return _any_of(self.bleed)

    def question(self, dimension: str, language: str) -> str:
        """Return the written question of a dimension; of the next steps for what is none."""
        return self.dimensions.get(dimension, self.next_steps).question(language)

    def open(
        self, *, closed: Iterable[str] = (), text: str = "", signals: Iterable[SignalKind] = ()
    ) -> tuple[str, ...]:
        """Return what may be asked, the most urgent first; `NEXT_STEPS` alone when nothing is left.

        Args:
            closed: dimensions that are known or were asked.
            text: the visitor's message, looked through for buying signals.
            signals: buying signals found already.
        """
        shut, found = set(closed), set(signals)
        left: Mapping[str, Dimension] = {n: d for n, d in self.dimensions.items() if n not in shut}

        def place(name: str) -> tuple[bool, bool, int]:
            dimension = left[name]
            urgent = dimension.signal in found or bool(dimension.urgent.search(text))
            return not (urgent and dimension.signal is not None), not urgent, dimension.priority

        return tuple(sorted(left, key=place)) or (NEXT_STEPS,)


@cache
def taxonomy() -> Taxonomy:
    """Return the taxonomy.

    Raises:
        ValidationError: the file does not fit.
    """
    raw = resources.files("workers.agents.discovery").joinpath("taxonomy.yaml").read_bytes()
    read = Taxonomy.model_validate(yaml.safe_load(raw))
    return read.model_copy(update={"digest": hashlib.sha256(raw).hexdigest()[:12]})


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)
