"""Fifty real conversations through a running system, while the fine-tuned model fails now and then."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from cli.simulated import excessive, model_calls, set_fault
from cli.system import RunningSystem
from infra.postgres.engine import create_engine
from schemas.turns import TERMINAL

pytestmark = pytest.mark.timeout(300)

DATA = Path(__file__).parents[3] / "shared" / "data" / "conversations"
EACH = 12
"""Conversations from each of the five files, as far as it has them; fifty in all."""

ALL = 50


def _user_lines() -> Iterator[tuple[str, list[str]]]:
    for file in sorted(DATA.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines()[:EACH]:
            row = json.loads(line)
            yield row["conversation_id"], [turn["text"] for turn in row["turns"] if turn["role"] == "user"]


async def _post(client: aiohttp.ClientSession, conversation: str, number: int, line: str) -> str:
    """Submit a turn, as often as the rate limit asks, and return its id."""
    while True:
        async with client.post(
            f"/v1/conversations/{conversation}/turns",
            json={"text": line},
            headers={"Idempotency-Key": f"{conversation}-{number}"},
        ) as answer:
            if answer.status == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                continue
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["turn_id"])


async def _watch(client: aiohttp.ClientSession, turn: str) -> list[dict[str, object]]:
    """Return every frame of a turn, read to the end of its stream."""
    async with client.get(f"/v1/turns/{turn}/events") as answer:
        body = (await answer.read()).decode()
    assert body.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:])["fairlead"] for line in body.splitlines() if line.startswith("data: {")]


async def _hold(client: aiohttp.ClientSession, conversation: str, lines: list[str], *, burst: bool) -> None:
    """Say all lines, each after the last answer or all at once; every stream must be whole."""
    turns: list[str] = []
    for number, line in enumerate(lines):
        turns.append(await _post(client, conversation, number, line))
        if not burst:
            await _watch(client, turns[-1])
    for frames in await asyncio.gather(*(_watch(client, turn) for turn in turns)):
        phases = [str(frame["phase"]) for frame in frames]
        assert [frame["seq"] for frame in frames] == list(range(len(frames)))
        assert sum(phase in {"done", "truncated", "failed", "handed_off"} for phase in phases) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared conversations are not beside this checkout")
async def test_fifty_conversations_all_end_in_order_with_at_most_two_calls_a_turn(system: RunningSystem) -> None:
    """Every turn ends, answered in its order, each stream whole, no turn with more than one call of each kind."""
    conversations = list(_user_lines())[:ALL]
    assert len(conversations) == ALL
    found = system.endpoints
    assert found.simulators is not None
    set_fault(found.simulators.tgi, "cut", after_tokens=40, times=25)

    async with aiohttp.ClientSession(
        found.gateway,
        headers={"Authorization": f"Bearer {found.api_key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=240),
    ) as client:
        await asyncio.gather(
            *(_hold(client, name, lines, burst=n % 2 == 0) for n, (name, lines) in enumerate(conversations))
        )

    engine = create_engine(found.database)
    async with engine.connect() as connection:
        rows = (
            await connection.execute(
                text("""
                SELECT conversation_id, seq, input_text, state, done_at, visible_at FROM turns
                WHERE conversation_id = ANY(:names) ORDER BY conversation_id, seq
                """),
                {"names": [name for name, _ in conversations]},
            )
        ).all()
    await engine.dispose()
    by_conversation = {name: [r for r in rows if r.conversation_id == name] for name, _ in conversations}
    for name, lines in conversations:
        turns = by_conversation[name]
        assert [r.input_text for r in turns] == lines
        assert all(r.state in TERMINAL for r in turns)
        ends = [r.done_at for r in turns]
        assert ends == sorted(ends)
        # No turn showed anything before its predecessor had ended.
        for earlier, later in pairwise(turns):
            assert later.visible_at is None or later.visible_at >= earlier.done_at
    states = Counter(r.state for r in rows)
    assert states["truncated"] > 0
    assert states["answered"] + states["truncated"] == len(rows)
    for simulator in (found.simulators.tgi, found.simulators.openai):
        assert excessive(model_calls(simulator)) == []
