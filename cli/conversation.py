"""A conversation with a running system over its WebSocket, as a browser would have it."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from cli.failure import CommandFailed
from cli.http import is_near
from schemas.frames import TERMINAL_PHASES, Phase

PATIENCE: Final = 60.0
"""Seconds without a connection after which a turn is given up."""

_PAUSES: Final = (0.1, 0.3, 1.0, 2.0)
_REFUSED: Final = 1008
"""Close code of a credential that is not, or no longer, valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFrame:
    """One frame as it came."""

    turn_id: str
    seq: int
    phase: Phase
    content: str
    json: str

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self.phase in TERMINAL_PHASES


class _Delta(BaseModel):
    content: str = ""


class _Choice(BaseModel):
    delta: _Delta


class _Place(BaseModel):
    turn_id: str
    seq: int
    phase: Phase


class _Chunk(BaseModel):
    choices: list[_Choice]
    fairlead: _Place


class _Problem(BaseModel):
    title: str = ""
    detail: str = ""


class _Message(BaseModel):
    type: Literal["accepted", "error", "pong"]
    id: str | None = None
    turn_id: str | None = None
    problem: _Problem | None = None


@dataclass(slots=True)
class _Asked:
    """A turn under way: what is known of it outlives a connection."""

    message_id: str
    text: str
    turn_id: str | None = None
    seq: int = -1

    def words(self) -> dict[str, object]:
        """What to send on a fresh connection: the message, under the same id, or the wish to go on."""
        if self.turn_id is None:
            return {"type": "turn", "id": self.message_id, "text": self.text, "ack": True}
        return {"type": "resume", "turn_id": self.turn_id, "seq": self.seq}


class Conversation:
    """Sends messages one at a time and yields the frames of their answers; an async context manager.

    A lost connection is made again, and the answer goes on where it was: no frame is missing or comes twice.
    """

    def __init__(self, url: str, *, key: str, conversation: str, patience: float = PATIENCE) -> None:
        self._address = f"ws{url.removeprefix('http').rstrip('/')}/v1/conversations/{conversation}/ws"
        self._key = key
        self._proxy: Literal[True] | None = None if is_near(url) else True
        self._patience = patience
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def ask(self, text: str) -> AsyncGenerator[SeenFrame]:
        """Send a message and yield the frames of its answer, the terminal one last.

        Raises:
            CommandFailed: the gateway refused, or stayed away for too long.
        """
        asked = _Asked(uuid.uuid4().hex, text)
        pauses, lost_at = iter(_PAUSES), time.monotonic()
        while True:
            try:
                async for frame in self._follow(asked):
                    pauses, lost_at = iter(_PAUSES), time.monotonic()
                    yield frame
                return
            except (ConnectionClosed, OSError, TimeoutError) as error:
                _check_close(error)
                await self._leave()
                if time.monotonic() - lost_at > self._patience:
                    raise CommandFailed(f"The gateway has not answered for {self._patience:.0f} s.") from None
                await asyncio.sleep(next(pauses, _PAUSES[-1]))

    async def drop(self) -> None:
        """Cut the connection as a network would."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _follow(self, asked: _Asked) -> AsyncGenerator[SeenFrame]:
        """Send what the turn needs and yield its frames until the terminal one."""
        socket = await self._connected()
        await socket.send(json.dumps(asked.words()))
        while True:
            frame = _read(await _received(socket), asked)
            if frame is None or frame.turn_id != asked.turn_id or frame.seq <= asked.seq:
                continue
            asked.seq = frame.seq
            yield frame
            if frame.terminal:
                return

    async def _connected(self) -> ClientConnection:
        """Return the connection, made anew if there is none.

        Raises:
            CommandFailed: the gateway does not want us, or the address is none.
            OSError: nothing answers.
        """
        if self._socket is None:
            try:
                self._socket = await connect(
                    self._address,
                    additional_headers={"Authorization": f"Bearer {self._key}"},
                    proxy=self._proxy,
                    max_size=2**20,
                )
            except InvalidStatus as error:
                if error.response.status_code >= 500:
                    raise ConnectionError(f"status {error.response.status_code}") from None
                raise CommandFailed(_refusal(error)) from None
            except (InvalidURI, InvalidHandshake, ValueError) as error:
                raise CommandFailed(f"{self._address} is not a gateway: {error}") from None
        return self._socket

    async def _leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


async def _received(socket: ClientConnection) -> str:
    message = await socket.recv()
    return message if isinstance(message, str) else message.decode()


def _read(text: str, asked: _Asked) -> SeenFrame | None:
    """Return the frame in a message; what is no frame may name the turn, or refuse it."""
    if '"fairlead"' in text:
        try:
            chunk = _Chunk.model_validate_json(text)
        except ValidationError:
            raise CommandFailed("The gateway speaks another version of the protocol.") from None
        place, content = chunk.fairlead, "".join(choice.delta.content for choice in chunk.choices)
        return SeenFrame(turn_id=place.turn_id, seq=place.seq, phase=place.phase, content=content, json=text)
    message = _Message.model_validate_json(text)
    if message.type == "accepted" and message.id == asked.message_id:
        asked.turn_id = message.turn_id
    elif message.type == "error" and message.id in {asked.message_id, asked.turn_id, None}:
        problem = message.problem or _Problem()
        raise CommandFailed(f"The gateway refused: {problem.title}. {problem.detail}")
    return None


def _refusal(error: InvalidStatus) -> str:
    try:
        problem = _Problem.model_validate_json(error.response.body or b"{}")
    except ValidationError:
        problem = _Problem()
    return f"The gateway refused ({error.response.status_code}): {problem.title}. {problem.detail}"


def _check_close(error: Exception) -> None:
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == _REFUSED:
        raise CommandFailed(f"The gateway ended the connection: {error.rcvd.reason}.") from None
