"""The product with one part of its lifecycle left out.

Each mutant names the promises one of which its absence breaks. Statements and scripts are changed as text; a text that
is not there any more is an error, so that no mutant silently becomes the product itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import TextClause, text

import producers.gateway.watch
from infra.postgres import claims, inbox, replay_runs, settlement, sweeps
from infra.postgres.statements import rows
from infra.postgres.views import TurnView
from infra.redis import frame_log
from infra.redis.frame_log import Stream
from schemas.frames import PHASE_OF_STATE, WireFrame, frames_of
from schemas.ids import TurnId
from workers.upkeep.sweep import Sweeper

Change = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """One part left out, and what a life then stumbles over."""

    name: str
    finds: str
    """Matches the beginning of the broken promise's sentence."""
    apply: Change


def without(module: Any, constant: str, *changes: tuple[str, str]) -> Change:
    """Return what replaces pieces of a statement's or a script's text."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        before = getattr(module, constant)
        after = before.text if isinstance(before, TextClause) else str(before)
        for old, new in changes:
            assert old in after, f"{constant} does not say {old!r} any more: bring the mutant up to date"
            after = after.replace(old, new)
        patch.setattr(module, constant, text(after) if isinstance(before, TextClause) else after)

    return apply


def script(*changes: tuple[str, str]) -> Change:
    """Return what replaces pieces of `frame_log.lua`."""
    return without(frame_log, "_SCRIPT", *changes)


async def _show_at_once(*_: object) -> bool:
    return True


def no_commit_point(patch: pytest.MonkeyPatch) -> None:
    """A worker shows text without asking the ledger first."""
    patch.setattr(claims.Claims, "latch_visible", _show_at_once)


def seal_first(patch: pytest.MonkeyPatch) -> None:
    """Upkeep seals the log before the ledger has moved to its epoch."""
    later = Sweeper.seal_abandoned_streams
    due = text("""SELECT turn_id::text, tenant_id, conversation_id, epoch + 1 AS epoch FROM turns
                  WHERE state = 'streaming' AND lease_until < clock_timestamp()""")

    async def sealed(sweeper: Sweeper) -> None:
        for found in await rows(sweeper.sweeps._engine, due, {}):  # pyright: ignore[reportPrivateUsage] - a mutant has no door of its own
            turn = Stream(TurnId(found["turn_id"]), found["tenant_id"], found["conversation_id"], found["epoch"])
            await sweeper.frames.seal(turn)
        await later(sweeper)

    patch.setattr(Sweeper, "seal_abandoned_streams", sealed)


def tell_checkpoints(patch: pytest.MonkeyPatch) -> None:
    """Watchers are told the checkpoint of a turn that still runs."""

    def told(view: TurnView) -> list[WireFrame]:
        ended = PHASE_OF_STATE.get(view.state)
        return frames_of(
            view.info,
            routed=view.planned,
            content=view.content,
            cuts=view.cuts,
            ended=ended,
            closing=None if ended is None else view.closing,
        )

    patch.setattr(producers.gateway.watch, "frames_of_view", told)


NO_OTHER_FALLBACK: Final = "AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = t.turn_id AND a.ordinal = 2)"

MUTANTS: Final = (
    Mutant(
        "an old epoch settles",
        "^I2:|^I12:",
        without(settlement, "_SETTLE", ("AND t.epoch = :epoch AND", "AND CAST(:epoch AS int) IS NOT NULL AND")),
    ),
    Mutant(
        "an ended turn is settled again",
        "^I2:|^a transition",
        without(
            settlement,
            "_SETTLE",
            ("AND t.state = ANY(CAST(:from_states AS text[]))", "AND CAST(:from_states AS text[]) IS NOT NULL"),
        ),
    ),
    Mutant(
        "two results",
        "^I11:",
        without(settlement, "_SETTLE", ("turn_id FROM done\n", "turn_id FROM done, generate_series(1, 2)\n")),
    ),
    Mutant(
        "a turn need not be the head",
        "^I8:",
        without(inbox, "_PREPARE", ("p.seq < t.seq AND p.done_at IS NULL", "p.seq < t.seq AND false")),
    ),
    Mutant(
        "a number is given twice",
        "^I9:|^I10:",
        without(inbox, "_RECORD", ("c.last_seq + excluded.last_seq", "c.last_seq")),
    ),
    Mutant(
        "an old orchestrator queues",
        "^I|^a transition",
        without(inbox, "_QUEUE", ("AND epoch = :epoch AND state = 'preparing'", "AND CAST(:epoch AS int) IS NOT NULL")),
    ),
    Mutant(
        "a running turn is claimed",
        "^I|^a transition|attempts_pkey",
        without(claims, "_CLAIM", ("t.state = 'queued' AND", "t.state IN ('queued', 'running') AND")),
    ),
    Mutant(
        "the flag is not consumed by a claim",
        "^I6:",
        without(claims, "_CLAIM", ("WHERE p.forced AND", "WHERE false AND")),
    ),
    Mutant("the flag is ignored", "^I6:", without(claims, "_CLAIM", ("c.force_frontier_next OR (t.plan", "(t.plan"))),
    Mutant(
        "the flag is not consumed by a rescue",
        "^I6:",
        without(claims, "_RESCUE", ("WHERE c.force_frontier_next AND", "WHERE false AND")),
    ),
    Mutant(
        "a truncated turn sets no flag",
        "^I6:",
        without(settlement, "_SETTLE", ("WHERE :force_frontier AND", "WHERE :force_frontier AND false AND")),
    ),
    Mutant(
        "a used fallback is rescued",
        "^I3:",
        without(
            claims,
            "_RESCUE",
            (NO_OTHER_FALLBACK, ""),
            (
                "FROM claimed\n    RETURNING ordinal",
                "FROM claimed\n    ON CONFLICT (turn_id, ordinal) DO UPDATE SET epoch = excluded.epoch\n"
                "    RETURNING ordinal",
            ),
        ),
    ),
    Mutant(
        "an old epoch falls back",
        "^I|^a transition|attempts_pkey",
        without(
            claims,
            "_FALLBACK",
            ("AND epoch = :epoch AND state = 'running'", "AND CAST(:epoch AS int) IS NOT NULL AND done_at IS NULL"),
        ),
    ),
    Mutant(
        "an old epoch becomes visible",
        "^I",
        without(claims, "_VISIBLE", ("AND epoch = :epoch AND", "AND CAST(:epoch AS int) IS NOT NULL AND")),
    ),
    Mutant(
        "an old epoch renews",
        "^I12:",
        without(claims, "_RENEW", ("AND t.epoch = u.epoch AND", "AND u.epoch IS NOT NULL AND")),
    ),
    Mutant(
        "a renewal brings a checkpoint back",
        "^I",
        without(
            claims,
            "_RENEW",
            ("CASE WHEN t.state = 'streaming' THEN u.content ELSE t.content END", "u.content"),
            ("AND t.epoch = u.epoch AND", "AND"),
        ),
    ),
    Mutant(
        "a rescue keeps the checkpoint",
        "^I1:|^I5:",
        without(sweeps, "_SEALED_UNSEEN", ("visible_at = NULL, content = '', cuts = '{}',", "visible_at = NULL,")),
    ),
    Mutant(
        "a rescue is not fenced off", "^I", without(sweeps, "_WORKER_LOST", ("epoch = t.epoch + 1", "epoch = t.epoch"))
    ),
    Mutant(
        "sealing is not fenced off", "^I", without(sweeps, "_TO_SEALING", ("THEN 1 ELSE 0 END", "THEN 0 ELSE 0 END"))
    ),
    Mutant(
        "a delivered letter is not taken",
        "turns_pkey|^I",
        without(replay_runs, "_DELIVER", ("state = 'unanswered', replay_turn = d.new_turn,", "state = 'unanswered',")),
    ),
    Mutant("no commit point", "^I", no_commit_point),
    Mutant(
        "the commit point asks nobody who has the conversation",
        "^I13:",
        without(claims, "_VISIBLE", ("      AND kept.keeper = 'agent'\n", "")),
    ),
    Mutant(
        "a silent answer asks nobody who has the conversation",
        "^I13:",
        without(settlement, "_SETTLE", ("WHERE kept.keeper = 'human'", "WHERE kept.keeper = 'nobody'")),
    ),
    Mutant(
        "a claim asks nobody who has the conversation",
        "^I13:",
        without(claims, "_CLAIM", ("      AND c.keeper = 'agent'\n", "")),
    ),
    Mutant(
        "a turn that is taken back keeps its epoch",
        "^I",
        without(inbox, "_PREPARE", ("epoch = t.epoch + 1", "epoch = t.epoch")),
    ),
    Mutant("the log is sealed before the ledger", "^I12:|^I", seal_first),
    Mutant("watchers are told checkpoints", "^I", tell_checkpoints),
    Mutant(
        "the log takes frames of any epoch",
        "^I",
        script(
            (
                "    if held > epoch then\n      answers[turn] = 'FENCED'\n"
                "    elseif held < epoch or first > n + 1 then",
                "    if first > n + 1 then",
            )
        ),
    ),
    Mutant("a repeated append repeats frames", "^I4:", script(("for i = n + 2 - first, count", "for i = 1, count"))),
    Mutant(
        "a hole is taken",
        "^I",
        script(
            ("held < epoch or first > n + 1", "held < epoch"),
            ("for i = n + 2 - first, count", "for i = math.max(1, n + 2 - first), count"),
        ),
    ),
    Mutant("sealing shuts nobody out", "^I", script(("redis.call('HSET', KEYS[1], 'e', epoch, 'p', found)\n", ""))),
    Mutant("a fence that is gone means unseen", "^I", script(("local found = 'missing'", "local found = 'armed'"))),
    Mutant(
        "an older fence shuts the owner out",
        "^I12:",
        script(
            (
                "if held > epoch then\n      answers[turn] = 'FENCED'\n    elseif held < epoch or",
                "if held ~= 0 and held ~= epoch then\n      answers[turn] = 'FENCED'\n    elseif held == 0 or",
            )
        ),
    ),
)
"""Every part that is left out in turn."""

_SHORT: Final = (
    "a turn need not be the head",
    "the flag is ignored",
    "an old epoch renews",
    "no commit point",
    "the commit point asks nobody who has the conversation",
    "the log is sealed before the ledger",
    "a repeated append repeats frames",
)
IN_SHORT: Final = tuple(mutant for mutant in MUTANTS if mutant.name in _SHORT)
"""A few that are found within seconds."""
