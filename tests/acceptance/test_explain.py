"""`fairlead explain` on a running system: what broke is said in words."""

import asyncio
import json
import uuid

from cli.simulated import set_fault
from cli.system import RunningSystem
from schemas.turns import TurnState

from .test_system import answer_to, conversation_on, fairlead, settled

SECRET = "our pallets of turquoise umbrellas"


async def test_a_turn_that_fell_back_is_explained(system: RunningSystem) -> None:
    """The sentence names the model that broke and the one that answered; what was written shows only on request."""
    simulated = system.endpoints.simulators
    assert simulated is not None
    set_fault(simulated.tgi, "close", after_tokens=0)
    async with conversation_on(system) as conversation:
        [first, *_] = await answer_to(conversation, f"We lose {SECRET}.")
    assert (await settled(system, first.turn_id)).state is TurnState.ANSWERED
    state = ("--state", str(system.state))

    done = await asyncio.to_thread(fairlead, "explain", first.turn_id, *state)
    assert (done.returncode, done.stderr) == (0, "")
    [said, *screen] = done.stdout.splitlines()
    assert said.startswith("Answered by the frontier after the fine-tuned model closed the connection before its first")
    assert "for the first word." in said
    for words in ("fairlead.turns, partition", "running → fallback", "incomplete", "fairlead.results", "ended done"):
        assert any(words in line for line in screen), done.stdout
    assert SECRET not in done.stdout

    revealed = await asyncio.to_thread(fairlead, "explain", first.turn_id, "--reveal", *state)
    assert f"We lose {SECRET}." in revealed.stdout
    assert "<p>" not in revealed.stdout

    found = system.endpoints
    elsewhere = ("--url", found.gateway, "--key", found.operator_key, "--json")
    facts = json.loads((await asyncio.to_thread(fairlead, "explain", first.turn_id, *elsewhere)).stdout)
    assert (facts["sentence"], facts["state"], len(facts["attempts"])) == (said, "answered", 2)
    assert facts.keys() & {"text", "answer"} == set()


def test_what_cannot_be_explained_is_one_sentence(system: RunningSystem) -> None:
    """An unknown turn, a word that is no id, and a key that is not an operator's each end in one sentence and 1."""
    found = system.endpoints
    asked = (
        (str(uuid.uuid4()), found.operator_key, "There is no turn"),
        ("yesterday's", found.operator_key, "There is no turn"),
        (str(uuid.uuid4()), "fl_live_0000", "does not know the key"),
    )
    for turn, key, said in asked:
        done = fairlead("explain", turn, "--url", found.gateway, "--key", key)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


async def test_a_plain_key_explains_nothing(system: RunningSystem) -> None:
    """With a key that may only take part in conversations the command says which key it needs."""
    async with conversation_on(system) as conversation:
        [first, *_] = await answer_to(conversation, "Hi, who are you?")
    await settled(system, first.turn_id)
    found = system.endpoints
    elsewhere = ("--url", found.gateway, "--key", found.api_key)
    done = await asyncio.to_thread(fairlead, "explain", first.turn_id, *elsewhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--scope operator" in done.stderr
