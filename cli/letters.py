"""Dead letters as the gateway tells them to operators, and as lines for people."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

from cli.operators import Place
from cli.tables import aligned, clock, counted, facts, headed, second
from cli.terminal import TerminalText, dim, harmless

PAGE: Final = 200
"""Most that the gateway lists at once."""

SLACK: Final = timedelta(seconds=60)
"""How much later than a younger one a dead letter may become visible: statements end in any order."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_TITLES: Final = ("id", "since, UTC", "reason", "stage", "state", "agent", "times", "replays", "conversation")


class Letter(BaseModel):
    """One dead letter, without anything a visitor wrote."""

    dead_letter_id: str
    turn_id: str | None = None
    tenant_id: str | None = None
    conversation_id: str | None = None
    agent: str | None = None
    channel: str | None = None
    reason: str
    stage: str
    state: str
    error: str | None = None
    versions: dict[str, Any] = {}
    times: int = 1
    replays: int = 0
    replay_turn: str | None = None
    replay_of: str | None = None
    kafka_topic: str | None = None
    kafka_partition: int | None = None
    kafka_offset: int | None = None
    copy_partition: int | None = None
    copy_offset: int | None = None
    created_at: datetime
    updated_at: datetime
    characters: int | None = None
    models: list[str] = []


class _Header(BaseModel):
    name: str
    value: str | None


class _Record(BaseModel):
    key: str | None
    value: str | None
    headers: list[_Header]


class WholeLetter(Letter):
    """One dead letter; what follows is there only if it was revealed."""

    text: str | None = None
    shown_html: str | None = None
    record: _Record | None = None


class Count(BaseModel):
    """How many share reason, state and agent."""

    reason: str
    state: str
    agent: str | None = None
    n: int
    oldest_at: datetime
    newest_at: datetime


class Stats(BaseModel):
    """Dead letters, counted."""

    total: int
    counts: list[Count]


class Page(BaseModel):
    """Some of a listing, newest first."""

    dead_letters: list[Letter]
    next: str | None = None


def read_page(place: Place, where: str, *, limit: int, cursor: str | None = None) -> Page:
    """Return a page of dead letters, newest first.

    Raises:
        CommandFailed: the filter says nothing, the key does not show them, or nothing answers.
    """
    query = {"where": where or None, "limit": str(min(limit, PAGE)), "cursor": cursor}
    return place.read(Page, place.ask("/v1/dead-letters", query=query))


def read_letters(place: Place, where: str, *, limit: int) -> tuple[list[Letter], bool]:
    """Return up to `limit` dead letters, newest first, and whether there are more.

    Raises:
        CommandFailed: as for `read_page`.
    """
    found: list[Letter] = []
    cursor: str | None = None
    while True:
        page = read_page(place, where, limit=limit - len(found), cursor=cursor)
        found += page.dead_letters
        cursor = page.next
        if cursor is None or len(found) >= limit:
            return found, cursor is not None


def read_stats(place: Place, where: str) -> Stats:
    """Return how many dead letters there are.

    Raises:
        CommandFailed: as for `read_page`.
    """
    return place.read(Stats, place.ask("/v1/dead-letters/stats", query={"where": where or None}, seconds=60))


@dataclass(slots=True)
class NewLetters:
    """Finds dead letters that were not there before, by looking again and again."""

    page: Callable[[str | None], Page]
    """Returns the page behind a cursor; None for the first."""
    _seen: dict[str, datetime] = field(default_factory=dict[str, datetime])
    _floor: datetime = _NEVER
    """Older ones were there before."""

    def latest(self, most: int) -> list[Letter]:
        """Begin: return the latest that are there, oldest first."""
        page = self.page(None)
        self._remember(page.dead_letters)
        if page.next is not None:
            self._floor = page.dead_letters[-1].created_at
        return page.dead_letters[:most][::-1]

    def new(self) -> list[Letter]:
        """Return those that have come since, oldest first."""
        horizon = max(self._floor, *(at - SLACK for at in self._seen.values()), self._floor)
        found: list[Letter] = []
        cursor: str | None = None
        while True:
            page = self.page(cursor)
            young = [letter for letter in page.dead_letters if letter.created_at > horizon]
            found += (letter for letter in young if letter.dead_letter_id not in self._seen)
            cursor = page.next
            if cursor is None or len(young) < len(page.dead_letters):
                break
        self._seen = {name: at for name, at in self._seen.items() if at > horizon}
        self._remember(found)
        return found[::-1]

    def _remember(self, letters: Sequence[Letter]) -> None:
        self._seen |= {letter.dead_letter_id: letter.created_at for letter in letters}


def listed(letters: Sequence[Letter], *, styled: bool) -> str:
    """Return dead letters one a line, below their columns' titles."""
    return headed(_TITLES, [_row(letter) for letter in letters], styled=styled) if letters else ""


def line(letter: Letter) -> str:
    """Return one dead letter as a line of its own, for lists that grow."""
    widths = (36, 19, 20, 9, 20, 20, 0, 0, 0)
    return aligned([[cell.ljust(width) for cell, width in zip(_row(letter), widths, strict=True)]]).strip()


def summed_up(stats: Stats, *, styled: bool) -> str:
    """Return counts by reason, state and agent, and their sum."""
    if not stats.counts:
        return "There are no dead letters.\n"
    titles = ("number", "reason", "state", "agent", "oldest, UTC", "newest, UTC")
    rows = [
        (f"{c.n:,}".rjust(len("number")), c.reason, c.state, c.agent or "—", second(c.oldest_at), second(c.newest_at))
        for c in stats.counts
    ]
    return headed(titles, rows, styled=styled) + f"{counted(stats.total, 'dead letter')}.\n"


def told(letter: WholeLetter, *, styled: bool) -> str:
    """Return everything that is known of one dead letter."""
    known = [
        ("dead letter", letter.dead_letter_id),
        ("state", letter.state),
        ("reason", f"{letter.reason}, while {letter.stage}"),
        ("error", letter.error),
        ("turn", letter.turn_id or "none: the record never became one"),
        ("conversation", letter.conversation_id),
        ("tenant", letter.tenant_id or "unknown"),
        ("channel", letter.channel),
        ("agent", letter.agent),
        ("models", ", then ".join(letter.models)),
        ("versions", ", ".join(f"{name} {value}" for name, value in letter.versions.items())),
        ("left a lane", f"{letter.times} times" if letter.times > 1 else "once"),
        ("replays", _replays(letter)),
        ("replay of", letter.replay_of),
        ("event", _place(letter.kafka_topic, letter.kafka_partition, letter.kafka_offset)),
        ("copy", _place("fairlead.turns.dlq", letter.copy_partition, letter.copy_offset)),
        ("since", clock(letter.created_at)),
        ("changed", clock(letter.updated_at) if letter.updated_at != letter.created_at else None),
        ("message", _message(letter)),
    ]
    return "".join(part for part in (facts(known, styled=styled), *_revealed(letter, styled=styled)))


def _row(letter: Letter) -> list[str]:
    return [
        letter.dead_letter_id,
        second(letter.created_at),
        letter.reason,
        letter.stage,
        letter.state,
        letter.agent or "—",
        str(letter.times),
        str(letter.replays),
        letter.conversation_id or "—",
    ]


def _replays(letter: Letter) -> str | None:
    if letter.replay_turn is None:
        return f"{letter.replays} in vain" if letter.replays else None
    in_vain = f", {letter.replays} in vain" if letter.replays else ""
    return f"its latest delivery is turn {letter.replay_turn}{in_vain}"


def _place(topic: str | None, partition: int | None, offset: int | None) -> str | None:
    return f"{topic}, partition {partition}, offset {offset}" if topic and offset is not None else None


def _message(letter: WholeLetter) -> str | None:
    if letter.characters is None:
        return None
    hidden = "" if letter.text is not None else "; --reveal shows it, and the audit keeps that"
    return f"{counted(letter.characters, 'character')}{hidden}"


def _revealed(letter: WholeLetter, *, styled: bool) -> list[str]:
    parts: list[str] = []
    if letter.text is not None:
        parts.append(f"\n{dim('the visitor wrote', styled=styled)}\n{harmless(letter.text)}\n")
    if letter.shown_html:
        shown = TerminalText(styled=styled)
        said = shown.show(letter.shown_html) + shown.end()
        parts.append(f"\n{dim('the visitor was shown', styled=styled)}\n{said}\n")
    if letter.record is not None and letter.record.value is not None:
        headers = [(_decoded(header.name), _decoded(header.value)) for header in letter.record.headers]
        parts.append(
            f"\n{dim('the record, as it came', styled=styled)}\n{aligned([('key', _decoded(letter.record.key))])}"
        )
        parts.append(aligned(headers))
        parts.append(f"{harmless(_decoded(letter.record.value))}\n")
    return parts


def _decoded(raw: str | None) -> str:
    """Return bytes as text for people; what is no UTF-8 is replaced."""
    if raw is None:
        return "—"
    try:
        return base64.b64decode(raw, validate=True).decode(errors="replace")
    except binascii.Error:
        return "not base64"


def as_json(value: object) -> str:
    """Return JSON in which no character can command a terminal."""
    return json.dumps(value, indent=2) + "\n"


def one_line(value: object) -> str:
    """Return such JSON on one line."""
    return json.dumps(value)
