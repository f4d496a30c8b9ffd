"""What a drill came to: figures for each part of it, and one sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cli.sentence import seconds
from cli.traffic import Visit

BEFORE: Final = "before"
AWAY: Final = "away"
AFTER: Final = "after"

_NOTICED: Final = {
    "truncated": "{n} answers cut off",
    "bounded": "{n} bounded replies",
    "refused": "{n} messages turned away",
    "broken": "{n} answers without an end",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """The turns that were sent in one part of a drill."""

    turns: int
    answered: int
    truncated: int
    bounded: int
    other: int
    """Refused, or not seen to their end."""
    first_word: tuple[float, float, float] | None
    """Seconds to the first word: the middle, the 95th of a hundred, the longest."""
    added: float
    """The most seconds that a failing primary added to a turn."""
    calls: float
    """Model calls a turn."""
    by_fallback: float
    """Share of answers that the fallback gave."""

    @classmethod
    def of(cls, visits: Sequence[Visit]) -> "Part":
        """Sum up."""
        endings = [visit.ending for visit in visits]
        waits = sorted(visit.first_word for visit in visits if visit.first_word is not None)
        known = {name: endings.count(name) for name in ("answered", "truncated", "bounded")}
        return cls(
            turns=len(visits),
            **known,
            other=len(visits) - sum(known.values()),
            first_word=(_rank(waits, 0.5), _rank(waits, 0.95), waits[-1]) if waits else None,
            added=max((visit.added for visit in visits), default=0.0),
            calls=sum(visit.calls for visit in visits) / len(visits) if visits else 0.0,
            by_fallback=sum(visit.source == "fallback" for visit in visits) / len(visits) if visits else 0.0,
        )

    def facts(self) -> dict[str, object]:
        """Return it as JSON has it."""
        middle, late, longest = self.first_word or (None, None, None)
        return {
            "turns": self.turns,
            "answered": self.answered,
            "truncated": self.truncated,
            "bounded": self.bounded,
            "other": self.other,
            "first_word_seconds": {"p50": middle, "p95": late, "max": longest},
            "most_added_seconds": round(self.added, 3),
            "calls_per_turn": round(self.calls, 3),
            "by_fallback": round(self.by_fallback, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """A drill that is over. Instants are of one monotonic clock."""

    drill: str
    lane: str
    visits: tuple[Visit, ...]
    away_at: float
    back_at: float
    opened_at: float | None
    closed_at: float | None

    @property
    def parts(self) -> dict[str, Part]:
        """Each part by name, in its order."""
        return {name: Part.of([visit for visit in self.visits if visit.part == name]) for name in (BEFORE, AWAY, AFTER)}

    @property
    def whole(self) -> Part:
        """All turns."""
        return Part.of(self.visits)

    @property
    def once_open(self) -> Part:
        """The turns of the outage that were sent when the breaker was seen open."""
        opened = self.opened_at
        return Part.of([v for v in self.visits if v.part == AWAY and opened is not None and v.sent > opened])

    @property
    def only_latency(self) -> bool:
        """Whether visitors noticed nothing but waiting, and all is as before."""
        return self.whole.answered == self.whole.turns > 0 and (self.opened_at is None or self.closed_at is not None)

    def sentence(self) -> str:
        """Say what visitors would have noticed."""
        counts = {name: sum(visit.ending == name for visit in self.visits) for name in _NOTICED}
        told = [words.format(n=counts[name]) for name, words in _NOTICED.items() if counts[name]]
        rest = self.whole.turns - self.whole.answered - sum(counts.values())
        if rest:
            told.append(f"{rest} that ended otherwise")
        waits = [part.first_word[2] if part.first_word else 0.0 for part in (self.parts[BEFORE], self.parts[AWAY])]
        added = f"the failing model added {seconds(self.whole.added)} to a turn at most"
        waited = f"up to {seconds(waits[1])} for the first word during the outage, {seconds(waits[0])} before it"
        if not told:
            return f"Visitors noticed nothing but waiting: {added}; {waited}."
        return f"Visitors noticed {', '.join(told)}; {added}; {waited}."

    def breaker(self) -> str:
        """Say what the breaker did."""
        if self.opened_at is None:
            return "The breaker did not open: too few calls failed within its window."
        opened = f"The breaker opened {seconds(self.opened_at - self.away_at)} after the model went away"
        if self.closed_at is None:
            return f"{opened} and has NOT closed: see `fairlead breakers ls`."
        return f"{opened} and closed {seconds(max(0.0, self.closed_at - self.back_at))} after it was back."

    def facts(self) -> dict[str, object]:
        """Return it as JSON has it."""
        opened, closed = self.opened_at, self.closed_at
        return {
            "drill": self.drill,
            "lane": self.lane,
            "only_latency": self.only_latency,
            "sentence": self.sentence(),
            "parts": {name: part.facts() for name, part in self.parts.items()},
            "whole": self.whole.facts(),
            "once_open": self.once_open.facts(),
            "breaker": {
                "opened_after_seconds": None if opened is None else round(opened - self.away_at, 2),
                "closed_after_seconds": None if closed is None else round(closed - self.back_at, 2),
            },
        }


def told(report: Report) -> str:
    """Return the report as a table and two sentences."""
    head = (
        "",
        "turns",
        "answered",
        "cut",
        "bounded",
        "other",
        "first word p50",
        "p95",
        "max",
        "added max",
        "calls",
        "fallback",
    )
    parts = {**report.parts, "all": report.whole}
    if report.once_open.turns:
        parts["away, breaker open"] = report.once_open
    table = [head, *(_row(name, part) for name, part in parts.items())]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    return "\n".join([*lines, "", report.sentence(), report.breaker()])


def _row(name: str, part: Part) -> tuple[str, ...]:
    waits = [seconds(wait) for wait in part.first_word] if part.first_word else ["—"] * 3
    counts = (part.turns, part.answered, part.truncated, part.bounded, part.other)
    return (name, *map(str, counts), *waits, seconds(part.added), f"{part.calls:.2f}", f"{part.by_fallback:.0%}")


def _rank(ordered: Sequence[float], share: float) -> float:
    """The value below or at which this share of the values lies."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
