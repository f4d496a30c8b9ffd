"""Showing a turn as it happens."""

import asyncio
import shutil
import sys
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cli.conversation import Conversation, SeenFrame
from cli.http import HttpFailed
from cli.terminal import TerminalText, dim
from cli.turns import Turn, read_turn
from schemas.frames import Phase


@dataclass(slots=True)
class Played:
    """What was seen of a turn."""

    started: float
    frames: list[SeenFrame] = field(default_factory=list[SeenFrame])
    first_text: float | None = None
    """Seconds from sending the message to the first visible text."""
    seconds: float = 0.0

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self.frames[0].turn_id

    @property
    def phase(self) -> Phase:
        """How it ended."""
        return self.frames[-1].phase

    @property
    def html(self) -> str:
        """Everything that was shown."""
        return "".join(frame.content for frame in self.frames)

    @property
    def whole(self) -> bool:
        """Whether the frames were one sequence without gap or repetition, ended once, by a full answer."""
        return (
            [frame.seq for frame in self.frames] == list(range(len(self.frames)))
            and [frame.terminal for frame in self.frames].count(True) == 1
            and self.phase is Phase.DONE
            and bool(self.html)
        )


class Screen:
    """Writes answers to a terminal or a file: text as it comes, and around it, dimly, who speaks and how it ended."""

    def __init__(self, out: TextIO, *, styled: bool, asides: bool) -> None:
        self._out = out
        self._styled = styled
        self._asides = asides

    async def play(self, conversation: Conversation, text: str, *, gateway: str, key: str) -> Played:
        """Send a message, show its answer, and return what was seen.

        Raises:
            CommandFailed: the gateway refused or stayed away.
        """
        played, answer = Played(time.monotonic()), TerminalText(styled=self._styled)
        async with aclosing(conversation.ask(text)) as frames:
            async for frame in frames:
                played.frames.append(frame)
                if frame.phase is Phase.ROUTED and self._asides:
                    turn = await asyncio.to_thread(_turn, gateway, frame.turn_id, key)
                    self.aside(turn.agent if turn and turn.agent else "routed")
                if frame.content and played.first_text is None:
                    played.first_text = time.monotonic() - played.started
                self.write(answer.show(frame.content))
        self.write(answer.end() + "\n")
        played.seconds = time.monotonic() - played.started
        if self._asides:
            turn = await asyncio.to_thread(_turn, gateway, played.turn_id, key)
            self.aside(_ending(played, turn))
        return played

    def write(self, text: str) -> None:
        """Show text at once. It must be harmless already."""
        self._out.write(text)
        self._out.flush()

    def aside(self, words: str) -> None:
        """Say something dimly on a line of its own."""
        self.write(dim(f"  {words}", styled=self._styled) + "\n")


def program() -> str:
    """Return how this program is called from here: by its name if the path knows it, else by its place."""
    called = Path(sys.argv[0])
    if shutil.which(called.name) or called.name != "fairlead":
        return "fairlead"
    with suppress(ValueError):
        return called.absolute().relative_to(Path.cwd()).as_posix()
    return "fairlead"


def _turn(gateway: str, turn_id: str, key: str) -> Turn | None:
    """Ask about a turn, for an aside: not worth failing for."""
    try:
        return read_turn(gateway, turn_id, key=key)
    except (HttpFailed, ValueError):
        return None


def _ending(played: Played, turn: Turn | None) -> str:
    state = turn.state.value if turn and turn.done else played.phase.value
    source = f" by the {turn.source} model" if turn and turn.source in {"primary", "fallback"} else ""
    source = " offline, without a model" if turn and turn.source == "offline" else source
    return f"{state}{source}, {played.seconds:.1f} s"
