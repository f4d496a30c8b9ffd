"""The frames of a conversation over one socket.

A client authenticates in the handshake (`Authorization`, or `Sec-WebSocket-Protocol: fairlead, <token>`) or with
its first message. It then hears every turn of the conversation that is submitted here or begins to speak while
the socket is open, each from its start; a turn it knows a part of it resumes. Frames come as JSON text exactly
as over server-sent events; messages of ours that are no frames have a `type`.
"""

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Final, assert_never, cast

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import JsonValue, ValidationError

from infra.postgres.statements import LedgerUnavailable
from infra.postgres.views import recent_turns
from infra.telemetry.metrics import CUT_WATCHERS, FRAMES_SENT, RESUMES, WATCHERS
from producers.admission import KeyReused, NotAccepted, NotText, RateLimited
from producers.gateway.auth import Principal, check_conversation, identify
from producers.gateway.parts import Parts, parts_of
from producers.gateway.problems import (
    ProblemError,
    forbidden,
    problem_of,
    respond,
    sentences,
    unauthenticated,
    unknown_turn,
)
from producers.gateway.socket_messages import (
    MAX_MESSAGE_BYTES,
    AuthMessage,
    ClientMessage,
    PingMessage,
    ResumeMessage,
    TurnMessage,
    client_message,
)
from producers.gateway.watch import FROM_THE_START, Located, Telling
from producers.rate_limit import RateLimit
from schemas.ids import CONVERSATION_PATTERN, TurnId
from schemas.names import conversation_channel
from schemas.turns import TurnRequest

SUBPROTOCOL: Final = "fairlead"
SEND_SECONDS: Final = 5.0
AUTH_SECONDS: Final = 10.0
RECHECK_SECONDS: Final = 60.0
"""How often a credential is looked at again: a key may be revoked while the socket is open."""

MAX_BAD_MESSAGES: Final = 10
MAX_FOLLOWED: Final = 32
"""Turns one socket follows at a time."""

_REMEMBERED_TURNS = 1_000
_DRAIN_LOOK_SECONDS = 0.5

POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
RESTARTING: Final = 1012
TRY_AGAIN: Final = 1013

_log = structlog.stdlib.get_logger()
_CONVERSATION = re.compile(CONVERSATION_PATTERN)

router = APIRouter()


class SocketGone(Exception):
    """The client left, or stopped reading and was cut."""


class CloseSocket(Exception):
    """The socket must be closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code: int = code
        self.reason: str = reason


@router.websocket("/v1/conversations/{conversation_id}/ws")
async def conversation_socket(websocket: WebSocket, conversation_id: str) -> None:
    """Serve one conversation over one socket until either side ends it."""
    parts = parts_of(websocket)
    socket = ConversationSocket(parts, websocket, conversation_id)
    with WATCHERS.labels("websocket").track_inprogress():
        await socket.run()


class ConversationSocket:
    """One client on one conversation."""

    def __init__(self, parts: Parts, websocket: WebSocket, conversation: str) -> None:
        self._parts = parts
        self._websocket = websocket
        self._conversation = conversation
        self._sending = asyncio.Lock()
        self._bad_messages = 0
        self._pace = RateLimit(per_minute=600, burst=50)
        self._principal: Principal | None = None
        self._credential = ""
        self._gone = asyncio.Event()
        self._follows: dict[TurnId, asyncio.Task[None]] = {}
        self._told: OrderedDict[TurnId, int] = OrderedDict()

    async def run(self) -> None:
        """Admit the client, then serve it until it leaves or has to go."""
        if not await self._open():
            return
        try:
            await self._authenticate()
            await self._serve()
        except CloseSocket as close:
            await self._close(close.code, close.reason)
        except SocketGone:
            await self._close(TRY_AGAIN, "the client does not read")
        finally:
            await self._unfollow()

    # Opening -------------------------------------------------------------

    async def _open(self) -> bool:
        """Accept the handshake, or refuse it with a problem when what it shows is not valid."""
        protocols = cast("list[str]", self._websocket.scope.get("subprotocols", []))
        token = _handshake_token(self._websocket.headers.get("authorization"), protocols)
        try:
            if not _CONVERSATION.fullmatch(self._conversation):
                raise ProblemError(
                    422, "invalid_request", "The request does not fit", "The conversation id is not one."
                )
            if token:
                await self._identify(token)
        except (ProblemError, LedgerUnavailable) as error:
            refusal = respond(self._websocket.url.path, problem_of(error))
            await self._websocket.send_denial_response(refusal)
            return False
        await self._websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in protocols else None)
        return True

    async def _authenticate(self) -> None:
        """Wait for the credential if the handshake had none."""
        due = time.monotonic() + AUTH_SECONDS
        while self._principal is None:
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    text = await self._receive()
            except TimeoutError:
                raise CloseSocket(POLICY_VIOLATION, "no credential came") from None
            match self._parsed(text):
                case AuthMessage(token=token):
                    await self._admit(token)
                case ProblemError() as problem:
                    await self._complain(problem)
                case _:
                    await self._complain(unauthenticated('Send {"type": "auth", "token": …} first.'))

    async def _admit(self, token: str) -> None:
        try:
            await self._identify(token)
        except LedgerUnavailable as error:
            await self._send_error(problem_of(error))
            raise CloseSocket(TRY_AGAIN, "the credential cannot be checked now") from error
        except ProblemError as error:
            await self._refuse(error)

    async def _refuse(self, error: ProblemError) -> None:
        await self._send_error(error)
        raise CloseSocket(POLICY_VIOLATION, "the credential is not valid") from error

    async def _identify(self, token: str) -> None:
        principal = await identify(self._parts, token, origin=self._websocket.headers.get("origin"), same_origin=False)
        if "turns" not in principal.scopes:
            raise forbidden("scope_missing", "The key lacks the scope 'turns'.")
        check_conversation(principal, self._conversation)
        if self._principal is not None and self._principal.tenant != principal.tenant:
            raise forbidden("tenant_changed", "The socket belongs to another tenant; open a new one.")
        self._principal, self._credential = principal, token

    # Serving -------------------------------------------------------------

    async def _serve(self) -> None:
        """Run reader, ear and guard side by side; the first to end ends the socket."""
        tasks = [
            asyncio.create_task(self._read(), name="socket-read"),
            asyncio.create_task(self._listen(), name="socket-listen"),
            asyncio.create_task(self._guard(), name="socket-guard"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self) -> None:
        while True:
            await self._handle(await self._receive())

    async def _handle(self, text: str) -> None:
        """Do what one message asks."""
        if self._pace.take(""):
            await self._complain(
                ProblemError(429, "too_many_messages", "Too many messages", "Send fewer than ten a second.")
            )
            return
        message = self._parsed(text)
        match message:
            case ProblemError():
                await self._complain(message)
            case PingMessage():
                await self._send_json({"type": "pong"})
            case AuthMessage(token=token):
                await self._admit(token)
            case ResumeMessage(turn_id=turn_id, seq=seq):
                await self._resume(TurnId(turn_id), seq)
            case TurnMessage():
                await self._submit(message)
            case _:
                assert_never(message)

    async def _submit(self, message: TurnMessage) -> None:
        """Let a turn in and follow it."""
        principal = self._authenticated
        try:
            if len(self._follows) >= MAX_FOLLOWED:
                raise ProblemError(429, "too_many_turns", "Too many turns at a time", "Wait for an answer first.")
            accepted = await self._parts.admission.submit(
                principal.tenant,
                self._conversation,
                _turn_request(message),
                idempotency_key=f"ws:{self._conversation}:{message.id}",
                traceparent=self._websocket.headers.get("traceparent"),
                visitor=principal.visitor,
                door="websocket",
            )
        except (ProblemError, NotText, RateLimited, KeyReused, NotAccepted) as error:
            await self._send_error(problem_of(error), about=message.id)
            return
        if message.ack:
            await self._send_json(
                {
                    "type": "accepted",
                    "id": message.id,
                    "turn_id": accepted.turn_id,
                    "duplicate": accepted.duplicate,
                }
            )
        self._follow(accepted.turn_id, FROM_THE_START)

    async def _resume(self, turn_id: TurnId, seq: int) -> None:
        """Go on with a turn where the client is, without telling twice what this socket has sent already."""
        RESUMES.labels("websocket").inc()
        try:
            turn = await self._parts.watcher.locate(turn_id, tenant=self._authenticated.tenant)
        except LedgerUnavailable as error:
            await self._send_error(problem_of(error), about=turn_id)
            return
        if turn is None or turn.conversation_id != self._conversation:
            await self._send_error(unknown_turn(), about=turn_id)
            return
        follower = self._follows.pop(turn_id, None)
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
            seq = max(seq, self._told.get(turn_id, FROM_THE_START))
        self._follow(turn_id, seq)

    async def _listen(self) -> None:
        """Follow turns of the conversation that others submitted, as soon as they speak."""
        channel = conversation_channel(self._authenticated.tenant, self._conversation)
        async with self._parts.hub.watch(channel) as ear:
            opened = time.monotonic()
            while True:
                heard = await ear.hear(3600.0)
                spoke = list(dict.fromkeys(frame.turn_id for frame in heard.frames))
                if heard.missed is not None:
                    spoke += await self._recent(time.monotonic() - opened)
                for turn_id in spoke:
                    if turn_id not in self._told and len(self._follows) < MAX_FOLLOWED:
                        self._follow(turn_id, FROM_THE_START)

    async def _recent(self, seconds: float) -> list[TurnId]:
        """Return the turns that may have spoken unheard: those recorded since the socket listens."""
        try:
            return await recent_turns(
                self._parts.engine,
                tenant=self._authenticated.tenant,
                conversation=self._conversation,
                seconds=seconds,
                limit=MAX_FOLLOWED,
            )
        except LedgerUnavailable:
            return []

    async def _guard(self) -> None:
        """End the socket when a follower found it gone, its credential ends, or the process drains."""
        due = self._next_check()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_LOOK_SECONDS):
                    await self._gone.wait()
                raise SocketGone
            if self._parts.draining.is_set():
                raise CloseSocket(RESTARTING, "this gateway restarts; connect again and resume")
            if time.time() >= min(due, self._authenticated.expires_at or due):
                await self._look_again()
                due = self._next_check()

    async def _look_again(self) -> None:
        """Look at the credential again; while the ledger does not answer, what it said last counts."""
        try:
            await self._identify(self._credential)
        except LedgerUnavailable:
            return
        except ProblemError as error:
            await self._refuse(error)

    def _next_check(self) -> float:
        return time.time() + RECHECK_SECONDS

    # Following -----------------------------------------------------------

    def _follow(self, turn_id: TurnId, after: int) -> None:
        """Send the turn's frames from here on; a turn that is followed already stays as it is."""
        if turn_id in self._follows:
            return
        self._told[turn_id] = after
        if len(self._told) > _REMEMBERED_TURNS:
            self._told.popitem(last=False)
        turn = Located(turn_id, self._authenticated.tenant, self._conversation)
        task = asyncio.create_task(self._forward(turn, after), name=f"follow-{turn_id}")
        self._follows[turn_id] = task
        task.add_done_callback(lambda done: self._followed(turn_id, done))

    async def _forward(self, turn: Located, after: int) -> None:
        async with aclosing(self._parts.watcher.batches(turn, Telling(after))) as batches:
            async for frames in batches:
                for frame in frames:
                    await self._send(frame.json)
                    self._told[turn.turn_id] = frame.seq
                FRAMES_SENT.labels("websocket").inc(len(frames))

    def _followed(self, turn_id: TurnId, task: asyncio.Task[None]) -> None:
        if self._follows.get(turn_id) is task:
            del self._follows[turn_id]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SocketGone):
            self._gone.set()
        elif error is not None:
            _log.error("follow_failed", turn_id=turn_id, error=type(error).__name__)

    async def _unfollow(self) -> None:
        tasks = list(self._follows.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The wire ------------------------------------------------------------

    @property
    def _authenticated(self) -> Principal:
        if self._principal is None:
            raise CloseSocket(POLICY_VIOLATION, "no credential came")
        return self._principal

    async def _receive(self) -> str:
        try:
            message = await self._websocket.receive()
        except (WebSocketDisconnect, RuntimeError) as error:
            raise SocketGone from error
        if message["type"] == "websocket.disconnect":
            raise SocketGone
        text = cast("str | None", message.get("text"))
        if text is None:
            text = cast("bytes", message.get("bytes") or b"").decode("utf-8", "replace")
        if len(text) > MAX_MESSAGE_BYTES or len(text.encode("utf-8", "replace")) > MAX_MESSAGE_BYTES:
            raise CloseSocket(TOO_BIG, "a message may have 16 KiB")
        return text

    def _parsed(self, text: str) -> ClientMessage | ProblemError:
        try:
            return client_message.validate_json(text)
        except ValidationError as error:
            found = cast("list[Mapping[str, object]]", error.errors(include_input=False, include_url=False))
            return ProblemError(422, "bad_message", "The message does not fit", sentences(found))

    async def _complain(self, problem: ProblemError) -> None:
        """Say what is wrong with a message; a client that keeps sending such is let go."""
        self._bad_messages += 1
        await self._send_error(problem)
        if self._bad_messages >= MAX_BAD_MESSAGES:
            raise CloseSocket(POLICY_VIOLATION, "too many messages that do not fit")

    async def _send_error(self, error: ProblemError, *, about: str | None = None) -> None:
        body: dict[str, JsonValue] = {"type": "error", "problem": error.problem.model_dump(mode="json")}
        if about is not None:
            body["id"] = about
        await self._send_json(body)

    async def _send_json(self, body: dict[str, JsonValue]) -> None:
        await self._send(json.dumps(body, ensure_ascii=False, separators=(",", ":")))

    async def _send(self, text: str) -> None:
        """Send one message.

        Raises:
            SocketGone: the client left, or did not read for `SEND_SECONDS`.
        """
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                await self._websocket.send_text(text)
        except TimeoutError as error:
            CUT_WATCHERS.labels("websocket").inc()
            raise SocketGone from error
        except (WebSocketDisconnect, RuntimeError) as error:
            raise SocketGone from error

    async def _close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(1):
                await self._websocket.close(code, reason)


def _turn_request(message: TurnMessage) -> TurnRequest:
    try:
        return TurnRequest(text=message.text, channel=message.channel, metadata=message.metadata)
    except ValidationError as error:
        found = cast("list[Mapping[str, object]]", error.errors(include_input=False, include_url=False))
        raise ProblemError(422, "invalid_request", "The request does not fit", sentences(found)) from error


def _handshake_token(authorization: str | None, protocols: list[str]) -> str | None:
    """Return the credential the handshake shows, if any. Never from the URL: URLs end up in logs."""
    if authorization is not None and authorization.lower().startswith("bearer "):
        return authorization[7:].strip()
    if protocols[:1] == [SUBPROTOCOL] and len(protocols) > 1:
        return protocols[1]
    return None
