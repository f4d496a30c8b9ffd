"""Dead letters by the hundred, and somebody who answers the turns of replays with the product's own statements."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infra.postgres.claims import Claims
from infra.postgres.letters import Owner
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.replays import ReplayRequest
from infra.postgres.settlement import ANY_UNSEEN, Settlement, settle
from schemas.ids import TurnId
from schemas.replays import ReplayMode
from schemas.turns import TurnState
from tests.support.pipeline import TENANT, Pipeline
from workers.dead_letters.replays import Replays

OWNER = Owner(TENANT, installation=False)

_CONVERSATIONS = """
INSERT INTO conversations (tenant_id, conversation_id, last_seq)
SELECT :tenant, c, 1 FROM unnest(CAST(:conversations AS text[])) c
ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET last_seq = conversations.last_seq + 1
"""
_TURNS = """
INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,
                   kafka_partition, kafka_offset, state, agent, content, closing, deadline_at, done_at)
SELECT gen_random_uuid(), c.tenant_id, c.conversation_id, c.last_seq, 'test', :asked, repeat('0', 64),
       'fairlead.turns', 0, 7, CAST(:state AS text), 'discovery',
       CASE WHEN :state = 'answered' THEN '<p>shown before</p>' ELSE '' END,
       CASE WHEN :state = 'bounded' THEN '<p>sorry</p>' END, now(), now()
FROM unnest(CAST(:conversations AS text[])) u(conversation_id) JOIN conversations c USING (conversation_id)
RETURNING turn_id::text AS id
"""
_LETTERS = """
INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage, state, agent)
SELECT t.turn_id, t.tenant_id, t.conversation_id, :reason, 'queued', :state, 'discovery'
FROM unnest(CAST(:turns AS uuid[])) u(turn_id) JOIN turns t USING (turn_id) RETURNING dead_letter_id::text AS id
"""


async def past_turns(p: Pipeline, conversations: Sequence[str], asked: str, state: str = "answered") -> list[TurnId]:
    """Add a turn that has ended to each of the conversations."""
    names = list(conversations)
    await p.query(_CONVERSATIONS, tenant=TENANT, conversations=names)
    found = await p.query(_TURNS, asked=asked, state=state, conversations=names)
    return [TurnId(str(r["id"])) for r in found]


async def dead_letters(
    p: Pipeline,
    conversations: Sequence[str],
    *,
    asked: str = "we lose track of stock",
    state: str = "unanswered",
    reason: str = "backend_failed_twice",
) -> list[str]:
    """Add to each conversation a turn that ended bounded, or was answered by the fallback, and its dead letter."""
    ended = "answered" if state == "answered_by_fallback" else "bounded"
    turns = await past_turns(p, conversations, asked, ended)
    return [str(r["id"]) for r in await p.query(_LETTERS, turns=turns, state=state, reason=reason)]


async def past_turn(p: Pipeline, conversation: str, asked: str) -> TurnId:
    """Add one answered turn."""
    return (await past_turns(p, [conversation], asked))[0]


async def dead_letter(p: Pipeline, conversation: str, *, asked: str = "we lose track of stock") -> str:
    """Add one unanswered turn and its dead letter."""
    return (await dead_letters(p, [conversation], asked=asked))[0]


def asked_for(
    where: str = "reason=backend_failed_twice", mode: ReplayMode = "deliver", **more: object
) -> ReplayRequest:
    """Return a request without a limit that matters."""
    values: dict[str, object] = {
        "where": where, "mode": mode, "rate": 1e6, "most": 10_000, "stop_percent": 50, "late": False,
    }  # fmt: skip
    return ReplayRequest(**{**values, **more})  # pyright: ignore[reportArgumentType] - as the fields have them


def runner(p: Pipeline, name: str = "r1", *, lease: float = 15.0, batch: int = 500, in_flight: int = 2_000) -> Replays:
    """Return one process's work on replay jobs."""
    runs = ReplayRuns(p.engine, owner=name, lease=lease, waiting=600.0, history=20)
    return Replays(runs=runs, redis=p.redis, batch=batch, in_flight=in_flight)


def answered(turn_id: TurnId) -> TurnState:
    """End every turn well."""
    return TurnState.ANSWERED


@dataclass
class StandIn:
    """Carries turns of replays from recorded to ended, without a model: claims, attempts and settlement are real."""

    p: Pipeline
    ending: Callable[[TurnId], TurnState] = answered
    settled: list[TurnId] = field(default_factory=list[TurnId])

    async def answer_all(self) -> int:
        """Answer the heads of all conversations; returns how many there were."""
        heads = await self.p.query("""
            SELECT t.turn_id::text AS id FROM turns t WHERE t.done_at IS NULL AND NOT EXISTS (
                SELECT 1 FROM turns e WHERE e.tenant_id = t.tenant_id AND e.conversation_id = t.conversation_id
                AND e.seq < t.seq AND e.done_at IS NULL) ORDER BY t.created_at""")
        for head in heads:
            await self.answer(TurnId(str(head["id"])))
        return len(heads)

    async def answer(self, turn_id: TurnId) -> None:
        """Prepare, queue, claim and settle one turn."""
        p = self.p
        prepared = await p.inbox.prepare(turn_id)
        assert prepared is not None
        assert await p.inbox.queue(prepared, await p.preparation.plan(prepared))
        claim = await Claims(p.engine, deadlines=p.policy.deadlines, owner="stand-in", history=10).claim(turn_id)
        assert claim is not None
        state = self.ending(turn_id)
        done = Settlement(
            turn_id=turn_id, tenant=claim.tenant, conversation_id=claim.conversation_id, seq=claim.seq,
            channel=claim.channel, agent=claim.agent, epoch=claim.epoch, from_states=ANY_UNSEEN, state=state,
            content="<p>an answer</p>" if state is TurnState.ANSWERED else "", cuts=(16,), source="primary",
            ordinal=claim.ordinal, attempt_state="succeeded", input_tokens=100, output_tokens=20,
        )  # fmt: skip
        assert await settle(p.engine, done, actor="stand-in") is not None
        self.settled.append(turn_id)


async def work(replays: Replays, by: StandIn, *, rounds: int = 400) -> None:
    """Let the runner and the stand-in take turns until no job is open and no replay under way."""
    for _ in range(rounds):
        moved = await replays.run_once() + await by.answer_all()
        open_jobs = await by.p.query("SELECT 1 FROM replay_jobs WHERE state = 'running'")
        under_way = await by.p.query("SELECT 1 FROM replay_items WHERE state = 'running'")
        if not open_jobs and not under_way:
            return
        if not moved:
            await asyncio.sleep(0.05)
    raise AssertionError("the jobs do not end")
