"""Statements that every turn or every sweep runs stay flat while finished turns pile up."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import TextClause, text

from infra.postgres import (
    claims,
    dead_letters,
    inbox,
    outbox,
    replay_runs,
    retention,
    settlement,
    sweeps,
    views,
    waiting,
)
from tests.support.pipeline import Pipeline, pipeline

_FINISHED = (
    "INSERT INTO conversations (tenant_id, conversation_id, last_seq)"
    " SELECT 'acme', 'c' || g, 20 FROM generate_series(0, 999) g",
    "INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,"
    " kafka_partition, kafka_offset, state, agent, plan, deadline_at, done_at)"
    " SELECT gen_random_uuid(), 'acme', 'c' || g % 1000, g / 1000 + 1, 'test', 'asked', '', 't', 0, g, 'answered',"
    " 'discovery', '{}', now(), now() FROM generate_series(0, 19999) g",
    "INSERT INTO turn_records (turn_id, value, produced_ms) SELECT turn_id, 'v', 0 FROM turns",
    "INSERT INTO attempts (turn_id, ordinal, epoch, model, ended_at) SELECT turn_id, 1, 2, 'm', now() FROM turns",
    "INSERT INTO turn_events (turn_id, to_state, epoch, actor) SELECT turn_id, 'answered', 2, 'a' FROM turns",
    "INSERT INTO outbox (topic, headers, value, turn_id, published_at)"
    " SELECT 't', '[]', 'v', turn_id, now() FROM turns",
    "INSERT INTO dead_letters (turn_id, reason, stage, state)"
    " SELECT turn_id, 'worker_lost', 'running', 'answered_by_fallback' FROM turns",
    "INSERT INTO idempotency (tenant_id, key, body_sha256, conversation_id, turn_id)"
    " SELECT tenant_id, turn_id, '', conversation_id, turn_id FROM turns",
    "ANALYZE",
)

_STATEMENTS: dict[str, TextClause] = {
    f"{module.__name__.rpartition('.')[2]}.{name}": statement
    for module, names in (
        (inbox, ("_RECORD", "_PREPARE", "_PREPARE_TOGETHER", "_QUEUE")),
        (claims, ("_CLAIM", "_RESCUE", "_FALLBACK", "_VISIBLE", "_RENEW", "_ENDED", "_OWNS")),
        (settlement, ("_SETTLE",)),
        (
            sweeps,
            (
                "_REHINT",
                "_WAKEABLE",
                "_QUEUE_DEADLINE",
                "_WORKER_LOST",
                "_PAST_DEADLINE",
                "_FORGOTTEN",
                "_THESE",
                "_ROUTABLE",
                "_TO_SEALING",
                "_SEALED_UNSEEN",
            ),
        ),
        (outbox, ("_TAKE", "_WAITING", "_MARK")),
        (views, ("_TURN", "_TRANSCRIPT", "_RECENT", "_ATTEMPTS", "_EVENTS")),
        (dead_letters, ("_UNANSWERED", "_PLACED")),
        (waiting, ("_TAKE_OVERDUE",)),
        (retention, ("_OUTBOX", "_DEAD_LETTERS", "_REPLAYS", "_KEYS", "_LOOK", "_LOCKED", "_CONVERSATIONS")),
        # Those that start or review many letters at a time may read as much: they are timed in benchmarks.
        (replay_runs, ("_LEASE", "_SHADOW", "_SEND_BACK", "_BOOK")),
    )
    for name in names
    for statement in [vars(module)[name]]
}
_GROWING = re.compile(
    r"Seq Scan on (?:turns|turn_records|attempts|turn_events|outbox|dead_letters|conversations|idempotency)\b"
)


@pytest.mark.parametrize("kind", ["force_generic_plan", "force_custom_plan"])
async def test_no_statement_reads_a_growing_table_whole(database_url: str, redis_url: str, kind: str) -> None:
    """With 20,000 finished turns every plan, made for the values or for any values, goes by indexes."""
    async with pipeline(database_url, redis_url) as p:
        for statement in _FINISHED:
            await p.query(statement)

        plans = {name: await _plan(p, name, statement, kind) for name, statement in _STATEMENTS.items()}

        assert {name: plan for name, plan in plans.items() if _GROWING.search(plan)} == {}


_QUEUED = (
    "INSERT INTO conversations (tenant_id, conversation_id, last_seq)"
    " SELECT 'acme', 'q' || g, 1 FROM generate_series(0, 19999) g",
    "INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,"
    " kafka_partition, kafka_offset, state, agent, plan, deadline_at, head_at, hinted_at, hints)"
    " SELECT gen_random_uuid(), 'acme', 'q' || g, 1, 'test', 'asked', '', 't', 1, g, 'queued', 'discovery', '{}',"
    " now() + interval '1 day', now(), now(), 1 FROM generate_series(0, 19999) g",
    "ANALYZE",
)


@pytest.mark.parametrize("kind", ["force_generic_plan", "force_custom_plan"])
async def test_no_sweep_walks_past_queued_turns(database_url: str, redis_url: str, kind: str) -> None:
    """With 20,000 turns queued, what is due is found by the moment at which it became so."""
    async with pipeline(database_url, redis_url) as p:
        for statement in _QUEUED:
            await p.query(statement)

        for name, condition in {
            "sweeps._REHINT": r"turns_hinted on turns.*\n.*Index Cond: \(hinted_at <",
            "sweeps._QUEUE_DEADLINE": r"turns_queued on turns.*\n.*Index Cond: \(head_at <",
            "sweeps._PAST_DEADLINE": r"turns_upkeep on turns.*\n.*Index Cond: .*deadline_at <",
        }.items():
            assert re.search(condition, await _plan(p, name, _STATEMENTS[name], kind)), name


async def _plan(p: Pipeline, name: str, statement: TextClause, kind: str) -> str:
    explain = text(f"EXPLAIN {statement.text}")
    values = {**_VALUES, "cuts": [1] if name == "settlement._SETTLE" else [""]}
    if name.startswith("dead_letters."):
        values["ids"] = _VALUES["turn_ids"]
    wanted = explain.compile().params
    async with p.engine.connect() as connection:
        await connection.execute(text(f"SET plan_cache_mode = {kind}"))
        found = await connection.execute(explain, {parameter: values.get(parameter) for parameter in wanted})
        await connection.execute(text("RESET plan_cache_mode"))
        return "\n".join(str(line) for line in found.scalars())


_VALUES: dict[str, object] = {
    "turn_id": "00000000-0000-0000-0000-000000000001",
    "job": "00000000-0000-0000-0000-000000000001",
    "positions": [1],
    "histories": ["[]"],
    "outcomes": ["answer"],
    "most": 8,
    "turn_ids": ["00000000-0000-0000-0000-000000000001"],
    "epochs": [1],
    "contents": [""],
    "ids": [1],
    "policy": 1,
    "prompts": "{}",
    "patience": 5.0,
    "rescue_rate": 5.0,
    "rescue_burst": 500.0,
    "letter": "malformed",
    "letter_error": "e",
    "tenant": "acme",
    "conversation": "c1",
    "from_states": ["running"],
    "state": "answered",
    "actor": "a",
    "owner": "a",
    "error": "e",
    "batch": 200,
    "limit": 200,
    "history": 10,
    "epoch": 1,
    "ordinal": 1,
    "lease": 15.0,
    "queue": 10.0,
    "turn": 75.0,
    "waiting": 600.0,
    "seconds": 60.0,
    "direct": False,
    "age": 1e6,
    "after_at": datetime(2026, 1, 1, tzinfo=UTC),
    "after_tenant": "",
    "after_name": "",
    "tenants": ["acme"],
    "names": ["c1"],
    "late": 4.0,
    "late_again": 1.0,
    "agents": ["discovery"],
    "rescues": True,
    "force_frontier": False,
    "turns_cut": 0,
    "topic": "t",
    "headers": "[]",
    "value": b"v",
    "key": b"k",
    "group_value": "{}",
    "content": "",
    "source": "primary",
    "attempt_state": "succeeded",
    "agent": "discovery",
    "plan": "{}",
    "note": "n",
}
