"""The demo's second act: with every model away a turn becomes a dead letter, and a replay answers it."""

import asyncio
import secrets
import sys
from typing import Any, Final

from cli.chat import styles_wanted
from cli.conversation import Conversation
from cli.failure import CommandFailed
from cli.letters import listed, read_letters
from cli.operators import Place
from cli.replay import Wanted, replay
from cli.screen import Played, Screen
from cli.simulated import Fault, set_fault
from cli.system import RunningSystem
from cli.terminal import BOLD, RESET, TerminalText
from schemas.frames import Phase
from schemas.turns import TurnState

QUESTION: Final = "Pickers tell us they count the same shelf twice a day. Can that stop?"
_RATE: Final = 20.0


def lose_and_replay(system: RunningSystem) -> None:
    """Let both models fail for one turn, show its dead letter, mend the models, and deliver its answer.

    Raises:
        CommandFailed: something else happened than was promised.
    """
    found = system.endpoints
    place = Place(gateway=found.gateway, key=found.operator_key, again="")
    conversation = f"demo-{secrets.token_hex(4)}"
    say("", strong("Now both models are away."))
    lost = asyncio.run(_ask_in_vain(system, conversation))
    [letter] = read_letters(place, f"turn={lost.turn_id}", limit=1)[0]
    say("", "The visitor got the bounded reply. The turn is a dead letter in an operator's hands:")
    say("", listed([letter], styled=styles_wanted()).rstrip(), "")
    say(strong("The models are back, and an operator replays it."))
    wanted = Wanted(where=f"turn={lost.turn_id}", mode="deliver", rate=_RATE, most=1, stop=20.0, late=False)
    status = replay(place, wanted, dry_run=False, yes=True, detach=False, json_wanted=False)
    answered = place.ask(f"/v1/conversations/{conversation}")["turns"][-1]
    _show(answered)
    [letter] = read_letters(place, f"turn={lost.turn_id}", limit=1)[0]
    if status != 0 or letter.state != "replayed" or answered["state"] != TurnState.ANSWERED:
        raise CommandFailed(f"the replay of turn {lost.turn_id} left its dead letter {letter.state}")


async def _ask_in_vain(system: RunningSystem, conversation: str) -> Played:
    found = system.endpoints
    screen = Screen(sys.stdout, styled=styles_wanted(), asides=True)
    screen.write(f"\n{strong('Buyer')}  {QUESTION}\n")
    await _fault(system, "status", status=503)
    try:
        async with Conversation(found.gateway, key=found.operator_key, conversation=conversation) as talk:
            played = await screen.play(talk, QUESTION, gateway=found.gateway, key=found.operator_key)
    finally:
        await _fault(system, "none")
    if played.phase is not Phase.FAILED:
        raise CommandFailed(f"with both models away turn {played.turn_id} ended {played.phase}")
    return played


async def _fault(system: RunningSystem, fault: Fault, **details: float) -> None:
    simulated = system.endpoints.simulators
    if simulated is None:
        raise CommandFailed("The demo needs the simulated models.")
    for base in (simulated.tgi, simulated.openai):
        await asyncio.to_thread(set_fault, base, fault, **details)


def _show(turn: dict[str, Any]) -> None:
    text = TerminalText(styled=styles_wanted())
    html = turn["answer"]["html"] if turn["answer"] else ""
    say("", f"  {turn['agent']}", (text.show(html) + text.end()).rstrip(), f"  turn {turn['seq']} of the conversation")


def strong(words: str) -> str:
    """Return words as they stand out on this terminal."""
    return f"{BOLD}{words}{RESET}" if styles_wanted() else words


def say(*lines: str) -> None:
    """Print lines at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
