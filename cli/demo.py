"""`fairlead demo`: a visible conversation on a system of its own, in the middle of which a model breaks."""

import asyncio
import os
import secrets
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from cli.chat import styles_wanted
from cli.conversation import Conversation
from cli.demo_replay import lose_and_replay, say, strong
from cli.failure import CommandFailed
from cli.http import HttpFailed
from cli.screen import Played, Screen, program
from cli.simulated import excessive, model_calls, set_fault
from cli.state import DEFAULT_STATE
from cli.supervisor import SupervisorError
from cli.system import LOG, RunningSystem, running_system
from cli.turns import Turn, read_turn
from cli.up import ends_like_ctrl_c
from infra.embedded.errors import EmbeddedError
from infra.embedded.process import last_lines
from infra.postgres.statements import LedgerUnavailable
from schemas.agents import Agent
from schemas.turns import TurnState

SECONDS: Final = 150.0
"""How long all of it may take, the start included."""

_NEXT: Final = (
    f"`{program()} up` runs such a system until Ctrl-C. Then `{program()} chat` talks to it; its address and the",
    "description of its API are printed when it is up (http://127.0.0.1:8080, unless --port says otherwise).",
)
_SHOWN_LINES = 25


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the buyer says, who should answer, and whether the fine-tuned model breaks before."""

    text: str
    agent: Agent
    breaks: bool = False


SCRIPT: Final = (
    Line(text="Hi! We run three warehouses, and pickers keep walking to empty shelves.", agent=Agent.DISCOVERY),
    Line(
        text="Can your API integrate with NetSuite, or do we need our own connector?",
        agent=Agent.TECHNICAL_CONSULTANT,
    ),
    Line(
        text="The numbers look wrong and the page is stale, it is not working. What should I do?",
        agent=Agent.SUPPORT,
    ),
    Line(
        text="Our people lose an hour per shift to wrong bin locations, and returns pile up.",
        agent=Agent.DISCOVERY,
        breaks=True,
    ),
    Line(text="It has to go live before the peak season in October. Who usually approves that?", agent=Agent.DISCOVERY),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of the script, what was seen of its answer, and what the ledger says."""

    line: Line
    played: Played
    turn: Turn

    def complaint(self) -> str | None:
        """Why this turn is not what was promised; None if it is."""
        expected = ("fallback", 2) if self.line.breaks else ("primary", 1)
        found = (self.turn.source, len(self.turn.attempts))
        match self.turn:
            case _ if not self.played.whole:
                return f"the answer to '{self.line.text}' did not come whole: it ended {self.played.phase}"
            case Turn(state=state) if state is not TurnState.ANSWERED:
                return f"turn {self.turn.turn_id} is {state}, not answered"
            case Turn(agent=agent) if agent != self.line.agent:
                return f"turn {self.turn.turn_id} was answered by {agent}, not by {self.line.agent}"
            case _ if found != expected:
                return f"turn {self.turn.turn_id} has (source, model calls) {found} instead of {expected}"
            case _:
                return None


def demo() -> int:
    """Play it; return 0 only if everything happened as promised, in time."""
    try:
        with ends_like_ctrl_c(), _own_state() as state, _within(SECONDS):
            _play(state)
    except TimeUp:
        say("", f"The demo failed: it took longer than {SECONDS:.0f} s.")
        return 1
    except KeyboardInterrupt:
        say("", "Stopped.")
        return 130
    except (CommandFailed, EmbeddedError, SupervisorError, HttpFailed, LedgerUnavailable) as error:
        say("", f"The demo failed: {error}")
        return 1
    say("", "All of it happened.", "", *_NEXT)
    return 0


class TimeUp(KeyboardInterrupt):
    """All of it takes too long. Like Ctrl-C, it must get through an event loop."""


@contextmanager
def _within(seconds: float) -> Generator[None]:
    """Raise `TimeUp` in the context when so many seconds have passed."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _own_state() -> Generator[Path]:
    """A directory that goes away; of a failure the log stays, and its end is shown."""
    state = DEFAULT_STATE / f"demo-{os.getpid()}"
    try:
        yield state
    except (Exception, TimeUp):
        kept = DEFAULT_STATE / f"{state.name}.log"
        if (state / LOG).exists():
            shutil.copyfile(state / LOG, kept)
            say(
                "",
                f"The last lines of the processes (all of them are in {kept}):",
                last_lines(kept, count=_SHOWN_LINES),
            )
        raise
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _play(state: Path) -> None:
    say("Starting PostgreSQL, Redis, a broker, two simulated models and Fairlead's processes ...")
    started = time.monotonic()
    with running_system(state, environ=_nothing_given(), samples=True) as system:
        say(f"{len(system.processes)} processes are up after {time.monotonic() - started:.0f} s.")
        told = asyncio.run(_converse(system))
        say("", *table(told))
        _check(system, told)
        lose_and_replay(system)
        say("", "Stopping everything ...")


def _nothing_given() -> Mapping[str, str]:
    """This environment without anything of ours: the demo needs nobody's servers and spends nobody's money."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "OPENAI_"))}


async def _converse(system: RunningSystem) -> list[Told]:
    screen = Screen(sys.stdout, styled=styles_wanted(), asides=True)
    found = system.endpoints
    conversation = Conversation(found.gateway, key=found.operator_key, conversation=f"demo-{secrets.token_hex(4)}")
    async with conversation:
        return [await _turn(system, conversation, screen, line) for line in SCRIPT]


async def _turn(system: RunningSystem, conversation: Conversation, screen: Screen, line: Line) -> Told:
    """Say one line, show the answer, and look it up in the ledger."""
    found = system.endpoints
    if line.breaks:
        screen.write(
            "\n" + strong("From now on the fine-tuned model cuts every connection before its first word.") + "\n"
        )
        await _fault(system, "close")
    screen.write(f"\n{strong('Buyer')}  {line.text}\n")
    played = await screen.play(conversation, line.text, gateway=found.gateway, key=found.operator_key)
    turn = await _settled(system, played.turn_id)
    if line.breaks:
        await _fault(system, "none")
        screen.write("\n" + strong(_SAID if turn.source == "fallback" else "No fallback was seen.") + "\n")
    return Told(line=line, played=played, turn=turn)


_SAID: Final = "The fine-tuned model was cut off; the frontier answered; the visitor saw one answer. It is mended now."


async def _fault(system: RunningSystem, fault: str) -> None:
    simulated = system.endpoints.simulators
    if simulated is None:
        raise CommandFailed("The demo needs the simulated models.")
    if fault == "close":
        await asyncio.to_thread(set_fault, simulated.tgi, "close", after_tokens=0)
    else:
        await asyncio.to_thread(set_fault, simulated.tgi, "none")


async def _settled(system: RunningSystem, turn_id: str) -> Turn:
    """Return the turn once the ledger has its end, which the last frame may be ahead of."""
    found = system.endpoints
    while True:
        turn = await asyncio.to_thread(read_turn, found.gateway, turn_id, key=found.operator_key)
        if turn.done:
            return turn
        await asyncio.sleep(0.05)


def _check(system: RunningSystem, told: list[Told]) -> None:
    """Compare what happened with what was promised.

    Raises:
        CommandFailed: naming everything that differs.
    """
    complaints = [complaint for one in told if (complaint := one.complaint()) is not None]
    simulated = system.endpoints.simulators
    calls = [call for base in ((simulated.tgi, simulated.openai) if simulated else ()) for call in model_calls(base)]
    complaints += [f"turn {turn} made more than one primary and one fallback call" for turn in excessive(calls)]
    made, recorded = len(calls), sum(len(one.turn.attempts) for one in told)
    if made != recorded:
        complaints.append(f"the models were called {made} times, the ledger knows {recorded} calls")
    if complaints:
        raise CommandFailed("; ".join(complaints))


def table(told: list[Told]) -> list[str]:
    """Return the summary: one line a turn, then the totals."""
    rows = [("turn", "agent", "state", "answered by", "calls", "first text")]
    rows += [
        (
            str(place),
            one.turn.agent or "",
            one.turn.state.value,
            f"{one.turn.attempts[-1].model} ({one.turn.source})",
            str(len(one.turn.attempts)),
            f"{1000 * (one.played.first_text or 0):.0f} ms",
        )
        for place, one in enumerate(told, 1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    median = statistics.median(one.played.first_text or 0 for one in told)
    calls = sum(len(one.turn.attempts) for one in told)
    total = f"{len(told)} turns, {calls} model calls, median time to the first text {1000 * median:.0f} ms"
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:], "", total]
