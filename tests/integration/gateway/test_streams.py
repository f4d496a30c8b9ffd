"""Server-sent events: every frame once, in order, whatever breaks."""

import asyncio
import socket

import httpx2
import pytest
from redis.asyncio import Redis

from infra.telemetry.metrics import CUT_WATCHERS
from producers.gateway.watch import Watcher
from schemas.frames import Phase, WireFrame, render
from schemas.names import conversation_channel, fence_key, log_key
from schemas.turns import TurnState
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.reading import content, events_of, told, watch
from tests.integration.gateway.waiting import until
from tests.integration.gateway.worker import PIECES, PlayedTurn, Worker


async def frames_json(turn: PlayedTurn) -> list[str]:
    return [frame.json for frame in await turn.frames()]


async def test_watcher_follows_from_acceptance_to_done(gateway: Gateway, worker: Worker) -> None:
    """The events URL works at once after 202 and tells accepted, routed, the content, done and [DONE]."""
    turn_id = await gateway.submit()
    watching = asyncio.create_task(watch(gateway.http, turn_id))
    turn = await worker.take(turn_id)
    await turn.route()
    for piece in PIECES:
        await turn.say(piece)
    await turn.settle()
    events = await watching
    assert told(events) == await frames_json(turn)
    assert [e.id for e in events[:-1]] == list(range(len(PIECES) + 3))
    assert [e.frame["fairlead"]["phase"] for e in events[:-1]][:3] == ["accepted", "routed", "streaming"]
    assert content(events) == "".join(PIECES)
    assert len({e.frame["created"] for e in events[:-1]}) == 1


async def test_late_watcher_sees_every_frame(gateway: Gateway, worker: Worker) -> None:
    """A watcher that comes after the end reads the turn from its start."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    assert told(await watch(gateway.http, turn.turn_id)) == await frames_json(turn)


async def test_watcher_of_an_expired_log_reads_the_ledger(gateway: Gateway, worker: Worker, redis_url: str) -> None:
    """A turn whose log is gone is told again from the ledger, byte for byte."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    before = told(await watch(gateway.http, turn.turn_id))
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    assert told(await watch(gateway.http, turn.turn_id)) == before


@pytest.mark.parametrize("live", [False, True])
async def test_reconnecting_at_every_frame_sees_each_once(gateway: Gateway, worker: Worker, live: bool) -> None:
    """Whatever the last frame seen, the stream goes on after it without gap or repetition."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    await turn.say("one ", "two ")
    watching: list[asyncio.Task[list[str]]] = []

    async def rest(after: int) -> list[str]:
        return told(await watch(gateway.http, turn.turn_id, after=after))

    positions = range(-1, 8)
    if live:
        watching = [asyncio.create_task(rest(after)) for after in positions]
        await asyncio.sleep(0.2)
    await turn.say("three ", "four")
    await turn.settle()
    whole = await frames_json(turn)
    if not live:
        watching = [asyncio.create_task(rest(after)) for after in positions]
    for after, seen in zip(positions, await asyncio.gather(*watching), strict=True):
        assert seen == whole[after + 1 :]


async def test_lost_live_frames_are_healed(gateway: Gateway, worker: Worker, redis_url: str) -> None:
    """Frames that never came over pub/sub are read from the log as soon as a later one shows the gap."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    watching = asyncio.create_task(watch(gateway.http, turn.turn_id))
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        channel = conversation_channel(gateway.tenant, "c1")
        await until_subscribed(redis, channel)
        # Into the log only: the published copies are lost.
        hidden = [render(turn.info, 2, Phase.STREAMING, "a"), render(turn.info, 3, Phase.STREAMING, "b")]
        await redis.rpush(log_key(turn.turn_id), *(frame.encode() for frame in hidden))
        await redis.hset(fence_key(turn.turn_id), "n", "3")
    turn.pieces = ["a", "b"]
    await turn.say("c")
    await turn.settle()
    assert told(await watching) == await frames_json(turn)


async def test_lost_tail_is_reconciled(gateway: Gateway, worker: Worker) -> None:
    """A publisher that dies between ledger and Redis cannot leave a watcher waiting."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    await turn.say(*PIECES)
    watching = asyncio.create_task(watch(gateway.http, turn.turn_id))
    await asyncio.sleep(0.1)
    await turn.settle(publish=False)
    assert told(await watching) == await frames_json(turn)


async def test_wiped_redis_is_healed_from_the_ledger(gateway: Gateway, worker: Worker, redis_url: str) -> None:
    """Redis forgetting everything mid-stream costs latency, no frame."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    await turn.say("one ")
    watching = asyncio.create_task(watch(gateway.http, turn.turn_id))
    await asyncio.sleep(0.2)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    turn.pieces += ["two ", "three"]
    await turn.settle(publish=False)
    assert told(await watching) == await frames_json(turn)


async def test_interrupted_subscription_is_resynced(gateway: Gateway, worker: Worker, redis_url: str) -> None:
    """Frames published while the subscription was cut are read from the log once it is back."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    watching = asyncio.create_task(watch(gateway.http, turn.turn_id))
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await until_subscribed(redis, conversation_channel(gateway.tenant, "c1"))
        await redis.client_kill_filter(_type="pubsub")
        await turn.say(*PIECES)
        await turn.settle()
    assert told(await watching) == await frames_json(turn)


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (TurnState.TRUNCATED, "truncated"),
        (TurnState.BOUNDED, "failed"),
        (TurnState.HANDED_OFF, "handed_off"),
        (TurnState.CANCELLED, "failed"),
        (TurnState.PARKED, "failed"),
    ],
)
async def test_every_ending_is_one_terminal_frame(
    gateway: Gateway, worker: Worker, state: TurnState, phase: str
) -> None:
    """However a turn ends, its watcher gets one terminal frame with the closing words and [DONE]."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    await turn.settle(state, closing="<p>Sorry.</p>")
    events = await watch(gateway.http, turn.turn_id)
    last = events[-2].frame
    assert last["fairlead"]["phase"] == phase
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["choices"][0]["delta"]["content"] == "<p>Sorry.</p>"
    assert sum(e.frame["choices"][0]["finish_reason"] is not None for e in events[:-1]) == 1


async def test_rejected_turn_has_no_routed_frame(gateway: Gateway, worker: Worker) -> None:
    """A turn that never got a lane ends right after its acceptance."""
    turn = await worker.take(await gateway.submit())
    await turn.settle(TurnState.REJECTED, closing="<p>No.</p>")
    phases = [e.frame["fairlead"]["phase"] for e in (await watch(gateway.http, turn.turn_id))[:-1]]
    assert phases == ["accepted", "failed"]


async def test_slow_reader_loses_nothing(gateway: Gateway, worker: Worker) -> None:
    """A client that reads late is told to everything in order: its queue is bounded, the log is not."""
    turn = await worker.take(await gateway.submit())
    await turn.route()
    big = "x" * 20_000
    async with gateway.http.stream("GET", f"/v1/turns/{turn.turn_id}/events") as response:
        for _ in range(150):
            await turn.say(big)
        await turn.settle()
        seen = [event async for event in events_of(response)]
    assert told(seen) == await frames_json(turn)


async def test_raw_socket_reads_the_documented_bytes(gateway: Gateway, worker: Worker) -> None:
    """Without any client library the wire is `id`, `data`, blank line, and `data: [DONE]` last."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"GET /v1/turns/{turn.turn_id}/events HTTP/1.1", "Host: x", "Connection: close"]
    writer.write("\r\n".join([*lines, f"Authorization: Bearer {gateway.key}", "", ""]).encode())
    wire = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, body = wire.partition(b"\r\n\r\n")
    frames = await turn.frames()
    expected = "".join(f"id: {f.seq}\ndata: {f.json}\n\n" for f in frames) + "data: [DONE]\n\n"
    assert b"content-type: text/event-stream" in head.lower()
    assert dechunked(body).decode() == expected


async def test_client_that_left_stops_its_watcher(gateway: Gateway, worker: Worker) -> None:
    """A closed connection ends the subscription behind it."""
    turn = await worker.take(await gateway.submit())
    await watch(gateway.http, turn.turn_id, most=1)
    await until(lambda: gateway.parts.hub.channels == 0)


async def test_client_that_never_reads_is_cut(
    gateway: Gateway, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stops for good is let go instead of holding its watcher for ever."""
    monkeypatch.setattr("producers.gateway.streams.SEND_SECONDS", 0.3)
    turn = await worker.take(await gateway.submit())
    await turn.route()
    host, port = gateway.url.removeprefix("http://").split(":")
    request = f"GET /v1/turns/{turn.turn_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    before = cut_watchers()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((host, int(port)))
        stuck.sendall(request.encode())
        async with asyncio.timeout(15):
            while cut_watchers() == before:
                await turn.say("x" * 200_000)
                await asyncio.sleep(0.02)
        await until(lambda: gateway.parts.hub.channels == 0)


async def test_keep_alives_come_while_nothing_else_does(
    gateway: Gateway, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet stream carries comments, so that proxies keep it open."""
    monkeypatch.setattr("producers.gateway.streams.KEEP_ALIVE_SECONDS", 0.2)
    hasten(gateway, 0.2)
    turn = await worker.take(await gateway.submit())
    url = f"/v1/turns/{turn.turn_id}/events"
    async with asyncio.timeout(10), gateway.http.stream("GET", url) as response:
        async for line in response.aiter_lines():
            if line == ": keep-alive":
                break
        else:
            pytest.fail("the stream ended without a keep-alive")


async def test_draining_lets_streams_go_without_done(gateway: Gateway, worker: Worker) -> None:
    """A stopping gateway ends streams without [DONE], so that clients come back to another one."""
    hasten(gateway, 0.2)
    turn = await worker.take(await gateway.submit())
    async with gateway.http.stream("GET", f"/v1/turns/{turn.turn_id}/events") as response:
        lines = response.aiter_lines()
        first = await anext(lines)
        gateway.parts.draining.set()
        rest = [line async for line in lines]
    assert first == "id: 0"
    assert "data: [DONE]" not in rest
    assert ": reconnect" in rest


async def test_unknown_and_foreign_turns_are_the_same_404(gateway: Gateway, worker: Worker) -> None:
    """Nobody can tell a turn of another tenant from one that does not exist."""
    turn = await worker.take(await gateway.submit())
    unknown = "00000000-0000-4000-8000-000000000000"
    foreign = await gateway.http.get(f"/v1/turns/{turn.turn_id}/events", headers=gateway.bearer(gateway.other_key))
    missing = await gateway.http.get(f"/v1/turns/{unknown}/events")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()


@pytest.mark.parametrize("bad", ["x", "1.5", "-7", "9" * 30])
async def test_bad_last_event_id_is_refused(gateway: Gateway, bad: str) -> None:
    """A position that is none is a 422, not a stream from somewhere."""
    response = await gateway.http.get(
        "/v1/turns/00000000-0000-4000-8000-000000000000/events", headers={"Last-Event-ID": bad}
    )
    assert response.status_code == 422


async def test_turn_accepted_by_another_gateway_is_found(gateway: Gateway, worker: Worker) -> None:
    """The turn another gateway accepted can be watched here before the ledger has it, if it came with a key."""
    turn_id = await gateway.submit(key="shared")
    gateway.parts.recent._turns.clear()  # pyright: ignore[reportPrivateUsage]
    watching = asyncio.create_task(watch(gateway.http, turn_id))
    await asyncio.sleep(0.1)
    turn = await worker.take(turn_id)
    await worker.answer(turn)
    assert told(await watching) == await frames_json(turn)


async def test_watch_yields_single_frames(gateway: Gateway, worker: Worker) -> None:
    """The watcher can also be read frame by frame."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    located = await gateway.parts.watcher.locate(turn.turn_id, tenant=gateway.tenant)
    assert located is not None
    seen: list[WireFrame] = [frame async for frame in gateway.parts.watcher.watch(located)]
    assert seen == await turn.frames()


def dechunked(body: bytes) -> bytes:
    """Take HTTP's chunks apart."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


async def until_subscribed(redis: Redis, channel: str) -> None:
    """Wait until somebody listens to a channel."""
    async with asyncio.timeout(10):
        while True:
            if dict(await redis.pubsub_numsub(channel)).get(channel, 0):
                return
            await asyncio.sleep(0.01)


def cut_watchers() -> float:
    """How many streams were cut so far."""
    samples = next(iter(CUT_WATCHERS.collect())).samples
    return sum(s.value for s in samples if s.name.endswith("_total") and s.labels["door"] == "sse")


def hasten(gateway: Gateway, seconds: float) -> None:
    """Look again more often than in production."""
    watcher: Watcher = gateway.parts.watcher
    watcher._reconcile = seconds  # pyright: ignore[reportPrivateUsage]


async def test_http_client_type(gateway: Gateway) -> None:
    """The server speaks HTTP/1.1 with keep-alive to an ordinary client."""
    response: httpx2.Response = await gateway.http.get("/healthz")
    assert response.status_code == 200
    assert response.http_version == "HTTP/1.1"
