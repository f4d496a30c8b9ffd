"""A person takes over on a running system, from the command line, while a visitor writes."""

import asyncio
import json
from typing import Any

from cli.explain import read_story
from cli.simulated import model_calls, set_fault
from cli.story import Story
from cli.system import RunningSystem
from schemas.turns import TurnState
from tests.support.pipeline import until

from .test_system import answer_to, conversation_on, fairlead, settled


async def story(system: RunningSystem, turn_id: str) -> Story:
    """Return everything about a turn once it has ended."""
    await settled(system, turn_id)
    found = system.endpoints
    return await asyncio.to_thread(read_story, found.gateway, turn_id, key=found.operator_key)


async def test_a_person_takes_over_in_mid_generation_and_gives_back(system: RunningSystem) -> None:
    """The agent falls silent, the visitor reads the person over the same socket, and then an agent answers again."""
    simulated = system.endpoints.simulators
    assert simulated is not None
    here = ("--state", str(system.state))

    async def run(*words: str) -> dict[str, Any]:
        done = await asyncio.to_thread(fairlead, "conversations", *words, "--json", *here)
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    async with conversation_on(system) as conversation:
        [first, *_] = await answer_to(conversation, "Hi, who are you?")
        name = (await story(system, first.turn_id)).conversation_id
        set_fault(simulated.tgi, "hang")
        before = len(model_calls(simulated.tgi))
        asked = asyncio.create_task(answer_to(conversation, "I want to speak to a person"))
        await until(lambda: len(model_calls(simulated.tgi)) > before, seconds=30)
        state = await run("take", name, "--as", "Ann", "--reason", "asked for a person")
        assert (state["keeper"], state["operator"]) == ("human", "Ann")
        [handed, *_, _] = await asyncio.wait_for(asked, 10)
        ended = await story(system, handed.turn_id)
        assert (ended.state, ended.reason, ended.answer is not None) == (TurnState.HANDED_OFF, "taken_over", True)

        written = await run("say", name, "Hello, this is Ann.")
        spoken = await story(system, written["turn_id"])
        assert (spoken.state, spoken.source, spoken.said_by) == (TurnState.ANSWERED, "human", "Ann")
        explained = await asyncio.to_thread(fairlead, "explain", written["turn_id"], *here)
        assert explained.stdout.startswith("Written by Ann, a person who had the conversation")

        set_fault(simulated.tgi, "none")
        assert (await run("give-back", name))["keeper"] == "agent"
        [again, *_] = await answer_to(conversation, "are you there?")
        assert (await settled(system, again.turn_id)).state is TurnState.ANSWERED

    refused = await asyncio.to_thread(fairlead, "conversations", "say", name, "too late", *here)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Take the conversation over first" in refused.stderr
    nowhere = await asyncio.to_thread(fairlead, "conversations", "show", "nowhere", *here)
    assert (nowhere.returncode, "There is no such conversation" in nowhere.stderr) == (1, True)
