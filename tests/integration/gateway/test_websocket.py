"""One socket a conversation: frames of every turn, and patience with whatever a client sends."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from schemas.names import conversation_channel
from tests.integration.gateway.conftest import ORIGIN, Gateway
from tests.integration.gateway.waiting import until
from tests.integration.gateway.worker import PIECES, PlayedTurn, Worker


@asynccontextmanager
async def socket_of(gateway: Gateway, conversation: str = "c1", **options: Any) -> AsyncGenerator[ClientConnection]:
    """Open a socket; by default with the tenant's key in the handshake."""
    options.setdefault("additional_headers", gateway.bearer(gateway.key))
    async with connect(f"{gateway.ws_url}/v1/conversations/{conversation}/ws", proxy=None, **options) as socket:
        yield socket


async def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return message


async def send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def frames_until_end(socket: ClientConnection) -> list[dict[str, Any]]:
    """Receive one turn's frames up to its terminal one."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["choices"][0]["finish_reason"] is None:
        frames.append(await receive(socket))
        assert "fairlead" in frames[-1], frames[-1]
    return frames


async def frames_of(turn: PlayedTurn) -> list[dict[str, Any]]:
    return [json.loads(frame.json) for frame in await turn.frames()]


async def close_code(socket: ClientConnection) -> int | None:
    """Receive until the server closes; return its code."""
    try:
        async with asyncio.timeout(15):
            while True:
                await socket.recv()
    except ConnectionClosed:
        return socket.close_code


async def test_turn_over_the_socket(gateway: Gateway, answering: Worker) -> None:
    """A turn sent over the socket is answered over it, frame by frame, by itself."""
    async with socket_of(gateway) as socket:
        await send(socket, type="turn", id="m1", text="hello")
        frames = await frames_until_end(socket)
    assert [f["fairlead"]["seq"] for f in frames] == list(range(len(PIECES) + 3))
    assert frames[0]["fairlead"]["phase"] == "accepted"
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in frames) == "".join(PIECES)


async def test_ack_names_the_turn(gateway: Gateway, worker: Worker) -> None:
    """Where asked for, the turn's id is told for the client's id; sent again it is the same turn."""
    async with socket_of(gateway) as socket:
        for duplicate in (False, True):
            await send(socket, type="turn", id="m1", text="hello", ack=True)
            ack = await receive(socket)
            assert (ack["type"], ack["id"], ack["duplicate"]) == ("accepted", "m1", duplicate)
        await send(socket, type="turn", id="m1", text="other")
        error = await receive(socket)
        assert (error["type"], error["id"], error["problem"]["code"]) == ("error", "m1", "key_reused")
    assert (await worker.arrival(ack["turn_id"])).channel == "web_chat"


async def test_two_sockets_hear_the_same_turn(gateway: Gateway, answering: Worker) -> None:
    """Everybody on a conversation hears every turn of it, whoever submitted it and however."""
    async with socket_of(gateway) as one, socket_of(gateway) as two:
        for socket in (one, two):
            # Answered once the socket serves, and it listens from then on.
            await send(socket, type="ping")
            await receive(socket)
        await until(lambda: gateway.parts.hub.listeners == 2)
        await gateway.submit("c1")
        first, second = await asyncio.gather(frames_until_end(one), frames_until_end(two))
    assert first == second
    assert [f["fairlead"]["seq"] for f in first] == list(range(len(PIECES) + 3))


async def test_other_conversations_are_not_heard(gateway: Gateway, answering: Worker) -> None:
    """A socket hears its own conversation only."""
    async with socket_of(gateway, "mine") as socket:
        await gateway.submit("theirs")
        await send(socket, type="turn", id="m1", text="hello")
        frames = await frames_until_end(socket)
    assert {f["fairlead"]["conversation_id"] for f in frames} == {"mine"}


async def test_turns_of_a_conversation_interleave_without_mixing(gateway: Gateway, worker: Worker) -> None:
    """Each turn's frames come in its own order, whatever other turns do."""
    turns: list[PlayedTurn] = []
    frames: list[dict[str, Any]] = []
    async with socket_of(gateway) as socket:
        for name in ("a", "b", "c"):
            await send(socket, type="turn", id=name, text=name, ack=True)
            while (message := await receive(socket)).get("type") != "accepted":
                frames.append(message)
            turns.append(await worker.take(message["turn_id"]))
        for turn in turns:
            await turn.route()
        for piece in PIECES:
            for turn in turns:
                await turn.say(piece)
        for turn in turns:
            await turn.settle()
        while sum(f["choices"][0]["finish_reason"] is not None for f in frames) < 3:
            frames.append(await receive(socket))
    for turn in turns:
        assert [f for f in frames if f["id"] == turn.turn_id] == await frames_of(turn)


async def test_resume_at_every_frame(gateway: Gateway, worker: Worker) -> None:
    """A client that comes back gets exactly what it lacks."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    whole = await frames_of(turn)
    async with socket_of(gateway) as socket:
        for seq in range(-1, len(whole) - 1):
            await send(socket, type="resume", turn_id=turn.turn_id, seq=seq)
            assert await frames_until_end(socket) == whole[seq + 1 :]


async def test_resume_of_a_running_turn_does_not_repeat(gateway: Gateway, worker: Worker) -> None:
    """Resuming a turn this socket follows already goes on where the socket is."""
    async with socket_of(gateway) as socket:
        await send(socket, type="turn", id="m", text="hello", ack=True)
        turn = await worker.take((await receive(socket))["turn_id"])
        await turn.route()
        await turn.say("one ", "two ")
        seen = [await receive(socket) for _ in range(4)]
        await send(socket, type="resume", turn_id=turn.turn_id, seq=1)
        await turn.say("three")
        await turn.settle()
        seen += await frames_until_end(socket)
    assert seen == await frames_of(turn)


async def test_resume_of_what_is_not_here_is_an_error(gateway: Gateway, worker: Worker) -> None:
    """Unknown turns, and turns of other conversations, are the same error; the socket stays."""
    other = await worker.take(await gateway.submit("elsewhere"))
    async with socket_of(gateway) as socket:
        for turn_id in (other.turn_id, "00000000-0000-4000-8000-000000000000"):
            await send(socket, type="resume", turn_id=turn_id, seq=0)
            error = await receive(socket)
            assert (error["problem"]["code"], error["id"]) == ("unknown_turn", turn_id)
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}


GARBAGE: list[str | bytes] = [
    "",
    "garbage",
    "{",
    "[]",
    "null",
    '{"type": "nonsense"}',
    '{"type": "turn"}',
    b"\xff\xfe\x00",
    '{"type": "resume", "turn_id": "x"}',
]


async def test_garbage_gets_an_error_and_the_socket_stays(gateway: Gateway) -> None:
    """What does not fit is answered with a problem that repeats nothing of it."""
    async with socket_of(gateway) as socket:
        for garbage in GARBAGE:
            await socket.send(garbage)
            error = await receive(socket)
            assert (error["type"], error["problem"]["code"]) == ("error", "bad_message"), garbage
            assert "nonsense" not in json.dumps(error)
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}


async def test_bad_text_is_refused_as_over_http(gateway: Gateway) -> None:
    """The same messages are refused over the socket as over HTTP."""
    async with socket_of(gateway) as socket:
        for text in ("", "  ", "a\x00b", "x" * 16_001, 7, None, "\ud800"):
            await send(socket, type="turn", id="m", text=text)
            assert (await receive(socket))["problem"]["status"] == 422, text


async def test_too_much_garbage_closes_1008(gateway: Gateway) -> None:
    """A client that keeps sending what does not fit is let go."""
    async with socket_of(gateway) as socket:
        for _ in range(10):
            await socket.send("garbage")
        assert await close_code(socket) == 1008


async def test_too_large_a_message_closes_1009(gateway: Gateway) -> None:
    """A message over 16 KiB ends the socket."""
    async with socket_of(gateway) as socket:
        await socket.send("x" * 20_000)
        assert await close_code(socket) == 1009


async def test_flood_is_slowed_down(gateway: Gateway) -> None:
    """Past ten messages a second the client is told so, and let go if it does not listen."""
    async with socket_of(gateway) as socket:
        for _ in range(70):
            await send(socket, type="ping")
        assert await close_code(socket) == 1008


async def test_token_in_the_subprotocol(gateway: Gateway) -> None:
    """Browsers cannot set headers: the token may come beside the subprotocol, and the subprotocol is answered."""
    token, conversation = await gateway.visitor_token()
    options = {"subprotocols": [Subprotocol("fairlead"), Subprotocol(token)], "origin": Origin(ORIGIN)}
    async with socket_of(gateway, conversation, additional_headers={}, **options) as socket:
        assert socket.subprotocol == "fairlead"
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}


async def test_token_in_the_first_message(gateway: Gateway, answering: Worker) -> None:
    """The token may also be the first message; before it nothing else is heard."""
    token, conversation = await gateway.visitor_token()
    async with socket_of(gateway, conversation, additional_headers={}, origin=Origin(ORIGIN)) as socket:
        await send(socket, type="turn", id="m", text="hello")
        assert (await receive(socket))["problem"]["code"] == "unauthenticated"
        await send(socket, type="auth", token=token)
        await send(socket, type="turn", id="m", text="hello")
        assert await frames_until_end(socket)


async def test_bad_token_in_the_first_message_closes_1008(gateway: Gateway) -> None:
    """A credential that is not valid ends the socket with a reason."""
    async with socket_of(gateway, additional_headers={}) as socket:
        await send(socket, type="auth", token="nonsense")
        assert (await receive(socket))["problem"]["code"] == "unauthenticated"
        assert await close_code(socket) == 1008


async def test_no_credential_in_time_closes_1008(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket nobody authenticates does not stay."""
    monkeypatch.setattr("producers.gateway.websocket.AUTH_SECONDS", 0.2)
    async with socket_of(gateway, additional_headers={}) as socket:
        assert await close_code(socket) == 1008


async def test_bad_credential_in_the_handshake_is_refused(gateway: Gateway) -> None:
    """An invalid key, a token from elsewhere, another's conversation: no socket, and a problem that says why."""
    token, conversation = await gateway.visitor_token()
    headers = gateway.bearer(token)
    expired = jwt.encode(
        {**jwt.decode(token, options={"verify_signature": False}), "exp": int(time.time()) - 5}, "w" * 32
    )
    cases: list[tuple[str, dict[str, str], str | None, int]] = [
        ("c1", gateway.bearer("nonsense"), None, 401),
        (conversation, gateway.bearer(expired), ORIGIN, 401),
        (conversation, headers, "https://evil.example.com", 403),
        (conversation, headers, None, 403),
        ("someone-else", headers, ORIGIN, 403),
        ("-bad-", gateway.bearer(gateway.key), None, 422),
    ]
    for name, shown, origin, status in cases:
        options = {"origin": Origin(origin)} if origin else {}
        with pytest.raises(InvalidStatus) as refused:
            async with socket_of(gateway, name, additional_headers=shown, **options):
                pass
        assert refused.value.response.status_code == status, (name, origin)


async def test_socket_ends_with_its_token(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket does not outlive its token, unless a fresh one comes in time."""
    monkeypatch.setattr(gateway.parts.tokens, "seconds", 2)
    token, conversation = await gateway.visitor_token()
    options = {"additional_headers": gateway.bearer(token), "origin": Origin(ORIGIN)}
    async with socket_of(gateway, conversation, **options) as one, socket_of(gateway, conversation, **options) as two:
        monkeypatch.setattr(gateway.parts.tokens, "seconds", 600)
        fresh, _ = await gateway.visitor_token(conversation)
        await send(two, type="auth", token=fresh)
        assert (await receive(one))["problem"]["code"] == "unauthenticated"
        assert await close_code(one) == 1008
        await send(two, type="ping")
        assert await receive(two) == {"type": "pong"}


async def test_revoked_key_ends_its_sockets(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key revoked while a socket is open ends it at the next look."""
    monkeypatch.setattr("producers.gateway.websocket.RECHECK_SECONDS", 0.5)
    key = await gateway.parts.tenants.create_key(gateway.tenant)
    async with socket_of(gateway, additional_headers=gateway.bearer(key)) as socket:
        await gateway.parts.tenants.revoke(key.split("_")[2])
        assert (await receive(socket))["problem"]["code"] == "unauthenticated"
        assert await close_code(socket) == 1008


async def test_draining_closes_1012(gateway: Gateway) -> None:
    """A stopping gateway tells its sockets to come back."""
    async with socket_of(gateway) as socket:
        gateway.parts.draining.set()
        assert await close_code(socket) == 1012


async def test_client_that_never_reads_is_cut(
    gateway: Gateway, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket nobody reads is cut, and its watcher ends."""
    monkeypatch.setattr("producers.gateway.websocket.SEND_SECONDS", 0.3)
    turn = await worker.take(await gateway.submit())
    await turn.route()
    async with socket_of(gateway, max_queue=1, close_timeout=0.2) as socket:
        await send(socket, type="resume", turn_id=turn.turn_id)
        channel = conversation_channel(gateway.tenant, "c1")
        await until(lambda: channel in gateway.parts.hub._channels)  # pyright: ignore[reportPrivateUsage]
        async with asyncio.timeout(20):
            while gateway.parts.hub.channels:
                await turn.say("x" * 300_000)
                await asyncio.sleep(0.02)
