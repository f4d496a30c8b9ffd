"""`fairlead chat`: talking to a running system from a terminal."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from cli.conversation import Conversation
from cli.failure import CommandFailed
from cli.screen import Screen
from cli.state import local_endpoints
from schemas.frames import Phase

_GOOD = frozenset({Phase.DONE, Phase.HANDED_OFF})


@dataclass(frozen=True, kw_only=True)
class _Line:
    """Where to talk, and how."""

    gateway: str
    key: str
    conversation: str
    as_json: bool


def chat(
    text: str | None, *, state: Path, url: str | None, key: str | None, conversation: str | None, as_json: bool
) -> int:
    """Send one message, or one after the other; return the exit status: 1 if an answer did not end well.

    Raises:
        CommandFailed: there is nothing to talk to, or it refused.
    """
    gateway, key = _where(state, url, key)
    line = _Line(gateway=gateway, key=key, conversation=conversation or f"chat-{secrets.token_hex(6)}", as_json=as_json)
    screen = Screen(sys.stdout, styled=styles_wanted(), asides=sys.stdout.isatty())
    if text is None and not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        if not text:
            raise CommandFailed("There is no message: write it behind the command, or pipe it in.", status=2)
    try:
        if text is not None:
            return 0 if asyncio.run(_say(line, screen, text)) in _GOOD else 1
        return _talk(line, screen)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return 130


def styles_wanted() -> bool:
    """Whether standard output is a terminal that shall show styles."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _where(state: Path, url: str | None, key: str | None) -> tuple[str, str]:
    if url is None:
        found = local_endpoints(state)
        return found.gateway, key or found.api_key
    if key is None:
        raise CommandFailed("--url needs a key: give --key, or set FAIRLEAD_API_KEY.", status=2)
    return url, key


def _talk(line: _Line, screen: Screen) -> int:
    """Go on until Ctrl-D or Ctrl-C at the prompt; Ctrl-C within an answer ends only the watching of it."""
    screen.aside(f"conversation {line.conversation} at {line.gateway}; Ctrl-D ends it")
    good = True
    for text in _prompted():
        try:
            good = asyncio.run(_say(line, screen, text)) in _GOOD and good
        except KeyboardInterrupt:
            screen.write("\n")
            screen.aside("the answer goes on without you; Ctrl-C again leaves")
    screen.write("\n")
    return 0 if good else 1


def _prompted() -> Iterator[str]:
    with suppress(ImportError):
        import_module("readline")  # its presence lets `input` edit lines
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            if text := input("you › ").strip():
                yield text


async def _say(line: _Line, screen: Screen, text: str) -> Phase:
    """Send one message and show what comes back; return how it ended."""
    conversation = Conversation(line.gateway, key=line.key, conversation=line.conversation)
    try:
        async with conversation:
            if line.as_json:
                return await _print_frames(conversation, screen, text)
            played = await screen.play(conversation, text, gateway=line.gateway, key=line.key)
            return played.phase
    except OSError as error:
        raise CommandFailed(f"Nothing answers at {line.gateway} ({error}): start it with `fairlead up`.") from None


async def _print_frames(conversation: Conversation, screen: Screen, text: str) -> Phase:
    phase = Phase.FAILED
    async with aclosing(conversation.ask(text)) as frames:
        async for frame in frames:
            # Told anew in ASCII: as it came, a control character of the second set would reach the terminal.
            screen.write(json.dumps(json.loads(frame.json)) + "\n")
            phase = frame.phase
    return phase
