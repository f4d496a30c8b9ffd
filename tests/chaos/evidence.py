"""What a fault run leaves behind: the ledger, the model servers' log, and what each watcher was told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.endpoints import SimulatorEndpoints
from cli.http import request
from infra.postgres.engine import create_engine
from schemas.frames import TERMINAL_PHASES, Phase
from schemas.names import TOPIC_RESULTS
from schemas.turns import TERMINAL, TurnState
from simulators.journal import CallRecord


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A turn that the gateway accepted with a 202."""

    turn: str
    conversation: str
    place: int
    """Among the turns its user had accepted in this conversation, from 0."""
    asked: float
    """When it was first sent; seconds since 1970, as are all times here."""
    at: float
    """When the 202 came."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One frame as a watcher got it."""

    seq: int
    phase: str
    content: str

    @property
    def terminal(self) -> bool:
        """Whether nothing may follow."""
        return Phase(self.phase) in TERMINAL_PHASES

    @classmethod
    def of(cls, data: str) -> "Told":
        """Read the data of a server-sent event."""
        chunk = json.loads(data)
        content = "".join(str(choice["delta"].get("content") or "") for choice in chunk["choices"])
        return cls(seq=int(chunk["fairlead"]["seq"]), phase=str(chunk["fairlead"]["phase"]), content=content)


@dataclass(kw_only=True)
class Transcript:
    """Everything one watcher of a turn was told, over as many connections as it needed."""

    turn: str
    watcher: str
    frames: list[Told] = field(default_factory=list[Told])
    connections: int = 0
    done: bool = False
    """Whether `[DONE]` came."""


@dataclass(frozen=True, kw_only=True)
class TurnRow:
    """A turn as the ledger has it in the end."""

    turn: str
    conversation: str
    seq: int
    state: str
    content: str
    closing: str | None
    visible: datetime | None
    ended: datetime | None

    @property
    def terminal(self) -> bool:
        """Whether it has reached its end."""
        return TurnState(self.state) in TERMINAL

    @property
    def text(self) -> str:
        """What a watcher must have on the screen."""
        return self.content + ("" if self.state == TurnState.ANSWERED else self.closing or "")


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """A model call as the ledger has it."""

    turn: str
    ordinal: int
    state: str
    error: str | None
    over: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """One row of a turn's history."""

    turn: str
    before: str | None
    after: str
    epoch: int
    at: datetime
    actor: str
    note: str | None

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.at:%H:%M:%S.%f} {self.before} -> {self.after} epoch {self.epoch} by {self.actor}{note}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the outbox."""

    turn: str
    place: int
    published: bool


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that a simulated model received."""

    turn: str | None
    attempt: str | None
    outcome: str
    at: float


@dataclass(kw_only=True)
class Evidence:
    """All of it; what the checker judges."""

    promises: Sequence[Promise] = ()
    transcripts: Sequence[Transcript] = ()
    turns: Sequence[TurnRow] = ()
    attempts: Sequence[AttemptRow] = ()
    steps: Sequence[Step] = ()
    results: Sequence[Result] = ()
    calls: Sequence[Call] = ()

    def of(self, name: str) -> "Evidence":
        """What concerns the conversations whose names begin so, of which `promises` and `transcripts` are all."""
        turns = [turn for turn in self.turns if turn.conversation.startswith(name)]
        known = {turn.turn for turn in turns} | {promise.turn for promise in self.promises}
        return Evidence(
            promises=self.promises,
            transcripts=self.transcripts,
            turns=turns,
            attempts=[attempt for attempt in self.attempts if attempt.turn in known],
            steps=[step for step in self.steps if step.turn in known],
            results=[result for result in self.results if result.turn in known],
            calls=[call for call in self.calls if call.turn in known],
        )

    def history(self, turn: str) -> list[str]:
        """The steps of a turn, readable, oldest first."""
        return [str(step) for step in self.steps if step.turn == turn]


async def gathered(
    database: str, simulators: SimulatorEndpoints, promises: Sequence[Promise], transcripts: Sequence[Transcript]
) -> Evidence:
    """Read ledger and request logs, and put them beside what users and watchers remember.

    Raises:
        HttpFailed: a simulator is away.
    """
    calls = [record for base in (simulators.tgi, simulators.openai) for record in _calls(base)]
    engine = create_engine(database)
    try:
        return Evidence(
            promises=promises,
            transcripts=transcripts,
            turns=[TurnRow(**row) for row in await _rows(engine, _TURNS)],
            attempts=[AttemptRow(**row) for row in await _rows(engine, _ATTEMPTS)],
            steps=[Step(**row) for row in await _rows(engine, _STEPS)],
            results=[Result(**row) for row in await _rows(engine, _RESULTS)],
            calls=[
                # What was asked to route a turn is no answer, and none of the calls that are counted.
                Call(turn=c["turn"], attempt=c["attempt"], outcome=c["outcome"], at=c["start"])
                for c in calls
                if c["routing"] is None
            ],
        )
    finally:
        await engine.dispose()


async def unfinished(database: str, promised: Sequence[str]) -> int:
    """How many of these turns have not ended, and results have not been published."""
    engine = create_engine(database)
    try:
        [row] = await _rows(engine, _UNFINISHED, promised=list(promised))
        return int(row["turns"]) + int(row["results"])
    finally:
        await engine.dispose()


def _calls(simulator: str) -> list[CallRecord]:
    return cast("list[CallRecord]", json.loads(request(f"{simulator}/_control/requests", seconds=20)))


async def _rows(engine: AsyncEngine, statement: str, **values: object) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(text(statement), values)).mappings()]


_TURNS = """
SELECT turn_id::text AS turn, conversation_id AS conversation, seq, state, content, closing,
       visible_at AS visible, done_at AS ended
FROM turns ORDER BY conversation_id, seq
"""
_ATTEMPTS = """
SELECT turn_id::text AS turn, ordinal, state, error, ended_at IS NOT NULL AS over FROM attempts ORDER BY 1, 2
"""
_STEPS = """
SELECT turn_id::text AS turn, from_state AS before, to_state AS after, epoch, at, actor, note
FROM turn_events ORDER BY event_id
"""
_RESULTS = f"""
SELECT turn_id::text AS turn, outbox_id AS place, published_at IS NOT NULL AS published FROM outbox
WHERE topic = '{TOPIC_RESULTS}' ORDER BY outbox_id
"""
_UNFINISHED = """
SELECT (SELECT count(*) FROM unnest(CAST(:promised AS uuid[])) AS p(turn_id)
        LEFT JOIN turns t USING (turn_id) WHERE t.done_at IS NULL) AS turns,
       (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS results
"""
