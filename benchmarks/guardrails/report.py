"""Commitments and abuse beside samples in which each line says what it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from schemas.briefs import Risk
from workers.guardrails.abuse import judge
from workers.guardrails.commitments import problem

_HERE: Final = Path(__file__).parent
NOTHING: Final = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sample was judged."""

    lines: int
    to_stop: int
    missed: list[str]
    false: list[str]
    mistaken: list[str]
    """Stopped, for another reason than the one it is labelled with."""

    def figures(self) -> dict[str, float]:
        """Return the share of what had to be stopped that was, and the share of the rest that was not."""
        harmless = self.lines - self.to_stop
        return {
            "lines": self.lines,
            "stopped": 1 - len(self.missed) / self.to_stop,
            "let through": 1 - len(self.false) / harmless,
            "for the right reason": 1 - len(self.mistaken) / self.to_stop,
        }


def commitments() -> Outcome:
    """Judge what an agent might say."""
    rows: list[list[str]] = _read("commitments.yaml")["answers"]
    return _outcome([(row[1], row[2], _kind(problem(row[2], row[0], row[3:]))) for row in rows])


def abuse() -> Outcome:
    """Judge what a visitor might write."""
    rows: list[list[str]] = _read("abuse.yaml")["messages"]
    return _outcome([(_risk(row[0]), row[1], _risk(judge(row[1]).risk)) for row in rows])


def _risk(name: str) -> str:
    return NOTHING if name == Risk.NONE else name


def _kind(found: str | None) -> str:
    return NOTHING if found is None else found.removeprefix("promised_")


def _outcome(judged: Sequence[tuple[str, str, str]]) -> Outcome:
    return Outcome(
        lines=len(judged),
        to_stop=sum(wanted != NOTHING for wanted, _, _ in judged),
        missed=[f"{wanted}: {text}" for wanted, text, found in judged if wanted and not found],
        false=[f"{found}: {text}" for wanted, text, found in judged if found and not wanted],
        mistaken=[
            f"{wanted} as {found}: {text}" for wanted, text, found in judged if wanted and found not in ("", wanted)
        ],
    )


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((_HERE / name).read_text(encoding="utf-8"))
