"""The whole system, from outside: every client that a user may have, against real processes."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NotRequired, TypedDict
from urllib.parse import urlsplit

import psutil
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from cli.conversation import Conversation, SeenFrame
from cli.endpoints import EndpointsFile
from cli.simulated import excessive, model_calls, set_fault
from cli.state import LocalSecrets
from cli.system import RunningSystem
from cli.turns import Turn, read_turn
from schemas.turns import TurnState

from .conftest import bare_environment

PATIENCE = 60.0
FAIRLEAD = [sys.executable, "-P", "-m", "cli.main"]


class Delta(TypedDict):
    content: NotRequired[str]


class Choice(TypedDict):
    delta: Delta
    finish_reason: str | None


class Place(TypedDict):
    seq: int
    phase: str


class Frame(TypedDict):
    """A frame as JSON has it."""

    choices: list[Choice]
    fairlead: Place


def fairlead(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal."""
    return subprocess.run(
        [*FAIRLEAD, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=bare_environment(),
        check=False,
    )


async def raw(url: str, *, key: str, body: object = None, once: str | None = None) -> tuple[int, bytes]:
    """Speak HTTP/1.1 over a socket, with nothing of a client library between; read until the other side ends."""
    place = urlsplit(url)
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"{f'Idempotency-Key: {once}' + chr(13) + chr(10) if once else ''}"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(head.encode() + content)
        answer = await reader.read()
        writer.close()
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


def frames_in(stream: str) -> list[Frame]:
    """Return the frames of an event stream, chunked or not."""
    lines = (line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {"))
    return [json.loads(line) for line in lines]


def content_of(frames: list[Frame]) -> str:
    """Return what a watcher of these frames has on the screen."""
    return "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames)


async def settled(system: RunningSystem, turn_id: str) -> Turn:
    """Return the turn, as operators see it, once it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = system.endpoints
            turn = await asyncio.to_thread(read_turn, found.gateway, turn_id, key=found.operator_key)
            if turn.done:
                return turn
            await asyncio.sleep(0.05)


def conversation_on(system: RunningSystem) -> Conversation:
    found = system.endpoints
    return Conversation(found.gateway, key=found.api_key, conversation=f"test-{uuid.uuid4().hex[:8]}")


async def answer_to(conversation: Conversation, text: str) -> list[SeenFrame]:
    async with asyncio.timeout(PATIENCE):
        return [frame async for frame in conversation.ask(text)]


async def test_three_turns_over_plain_http(system: RunningSystem) -> None:
    """A conversation of three turns, submitted and watched with no more than sockets, is answered in order."""
    found, conversation = system.endpoints, f"raw-{uuid.uuid4().hex[:8]}"
    agents: list[str | None] = []
    for text in ("Hi, we lose track of stock.", "Does it integrate with an ERP?", "The login is broken."):
        status, body = await raw(
            f"{found.gateway}/v1/conversations/{conversation}/turns", key=found.api_key, body={"text": text}
        )
        assert status == 202
        accepted = json.loads(body)
        _, stream = await raw(accepted["events_url"], key=found.api_key)
        frames = frames_in(stream.decode())
        assert [frame["fairlead"]["seq"] for frame in frames] == list(range(len(frames)))
        assert "data: [DONE]" in stream.decode()
        turn = await settled(system, accepted["turn_id"])
        assert turn.state is TurnState.ANSWERED
        assert content_of(frames)
        agents.append(turn.agent)
    assert agents == ["discovery", "technical_consultant", "support"]


async def test_an_event_delivered_four_times_is_one_turn(system: RunningSystem) -> None:
    """A sender that repeats an event under its id, at once and after the answer, gets one turn and one model call."""
    found, event = system.endpoints, f"Ev{uuid.uuid4().hex[:9].upper()}"
    url = f"{found.gateway}/v1/conversations/T1-C2-{event}/turns"

    async def deliver() -> str:
        status, body = await raw(url, key=found.api_key, body={"text": "Hi, who is there?"}, once=f"slack:{event}")
        assert status == 202
        return str(json.loads(body)["turn_id"])

    first = await asyncio.gather(deliver(), deliver())
    ended = await settled(system, first[0])
    again = [await deliver(), await deliver()]

    assert len({*first, *again}) == 1
    assert ended.state is TurnState.ANSWERED
    simulated = found.simulators
    assert simulated is not None
    asked = [call for base in (simulated.tgi, simulated.openai) for call in model_calls(base) if call.turn == first[0]]
    assert len(asked) == 1


async def test_openai_client_streams(system: RunningSystem) -> None:
    """The official client of OpenAI streams an answer through the gateway without knowing what it talks to."""
    found = system.endpoints
    async with AsyncOpenAI(base_url=f"{found.gateway}/v1", api_key=found.api_key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="fairlead", stream=True, messages=[{"role": "user", "content": "Hi, who are you?"}]
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_websocket(system: RunningSystem) -> None:
    """A WebSocket client sends a message and receives its frames, the terminal one last."""
    found = system.endpoints
    address = f"ws{found.gateway.removeprefix('http')}/v1/conversations/ws-{uuid.uuid4().hex[:8]}/ws"
    async with (
        asyncio.timeout(PATIENCE),
        connect(address, additional_headers={"Authorization": f"Bearer {found.api_key}"}, proxy=None) as socket,
    ):
        await socket.send(json.dumps({"type": "turn", "id": "1", "text": "Hello there"}))
        frames: list[Frame] = []
        while not frames or frames[-1]["choices"][0]["finish_reason"] is None:
            frames.append(json.loads(await socket.recv()))
    assert frames[-1]["fairlead"]["phase"] == "done"
    assert content_of(frames)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the path")
def test_curl(system: RunningSystem) -> None:
    """The request that `fairlead up` shows works as it stands."""
    found = system.endpoints
    body = {"model": "fairlead", "stream": True, "messages": [{"role": "user", "content": "Hi!"}]}
    headers = ["-H", f"Authorization: Bearer {found.api_key}", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        ["curl", "-sSN", f"{found.gateway}/v1/chat/completions", *headers, "-d", json.dumps(body)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert content_of(frames_in(done.stdout))
    assert done.stdout.rstrip().endswith("data: [DONE]")


async def test_fallback(system: RunningSystem) -> None:
    """When the fine-tuned model cuts every connection the frontier answers, asked once, and the answer is whole."""
    simulated = system.endpoints.simulators
    assert simulated is not None
    set_fault(simulated.tgi, "close", after_tokens=0)
    async with conversation_on(system) as conversation:
        frames = await answer_to(conversation, "We lose an hour per shift.")
    turn = await settled(system, frames[0].turn_id)
    assert (turn.state, turn.source, len(turn.attempts)) == (TurnState.ANSWERED, "fallback", 2)
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    calls = [call for base in (simulated.tgi, simulated.openai) for call in model_calls(base)]
    assert [call.attempt for call in calls if call.turn == turn.turn_id] == ["1", "2"]
    assert excessive(calls) == []


async def test_dropped_connection_resumes(system: RunningSystem) -> None:
    """A client whose connection breaks inside an answer goes on with it: no frame is missing, none comes twice."""
    async with conversation_on(system) as conversation, asyncio.timeout(PATIENCE):
        frames: list[SeenFrame] = []
        async for frame in conversation.ask("Tell me about the rollout, and how long it takes."):
            frames.append(frame)
            if len(frames) == 4:
                await conversation.drop()
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert [frame.terminal for frame in frames].count(True) == 1
    assert (await settled(system, frames[0].turn_id)).state is TurnState.ANSWERED


async def test_killed_worker_comes_back(system: RunningSystem) -> None:
    """A worker that is killed is started again, and what is asked meanwhile is answered."""
    before = system.processes["agents-discovery"]
    system.kill("agents-discovery")
    async with conversation_on(system) as conversation:
        frames = await answer_to(conversation, "Hi, are you there?")
    assert (await settled(system, frames[0].turn_id)).state is TurnState.ANSWERED
    await until(lambda: system.processes.get("agents-discovery", before) != before)


async def test_stopped_process_stays_down(system: RunningSystem) -> None:
    """A process that is stopped stays so until it is started."""
    await asyncio.to_thread(system.stop, "upkeep")
    assert "upkeep" not in system.processes
    system.start("upkeep")
    await until(lambda: "upkeep" in system.processes)


def test_chat_prints_an_answer(system: RunningSystem) -> None:
    """`fairlead chat` with one message prints the answer as text, and with --json its frames."""
    done = fairlead("chat", "--state", str(system.state), "Hi, what do you do?")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert "<" not in done.stdout
    assert "\x1b" not in done.stdout
    told = fairlead("chat", "--state", str(system.state), "--json", stdin="Hi, what do you do?\n")
    assert [json.loads(line)["fairlead"]["phase"] for line in told.stdout.splitlines()][-1] == "done"


def test_doctor_finds_all_well(system: RunningSystem) -> None:
    """`fairlead doctor` looks at everything a running system stands on and finds nothing to mend."""
    done = fairlead("doctor", "--state", str(system.state), "--json")
    report = json.loads(done.stdout)
    looked_at = {check["name"]: (check["state"], check["says"]) for check in report["checks"]}
    assert {name: said for name, said in looked_at.items() if said[0] == "fail"} == {}
    assert {"Kafka", "Redis", "PostgreSQL", "fine-tuned model", "frontier model", "gateway"} <= looked_at.keys()
    assert {looked_at[name][0] for name in looked_at if name != "disk"} == {"ok"}
    assert (done.returncode, report["ok"]) == (0, True)


def test_keys_are_made_and_revoked(system: RunningSystem) -> None:
    """Tenants, keys and sites are made from the command line, and a revoked key opens nothing."""
    state = ("--state", str(system.state), "--json")
    assert fairlead("tenants", "create", "acme", "--name", "Acme", *state).returncode == 0
    made = json.loads(
        fairlead("keys", "create", "--tenant", "acme", "--scope", "operator", "--scope", "turns", *state).stdout
    )
    assert made["scopes"] == ["operator", "turns"]
    site = fairlead("sites", "create", "--tenant", "acme", "--origin", "https://shop.example", *state)
    assert json.loads(site.stdout)["site_key"].startswith("site_")
    assert fairlead("keys", "revoke", made["key_id"], *state).returncode == 0
    refused = fairlead("chat", "--url", system.endpoints.gateway, "--key", made["key"], "Hi")
    assert refused.returncode == 1
    assert "refused" in refused.stderr
    assert fairlead("keys", "create", "--tenant", "nobody", *state).returncode == 1


def test_secrets_are_their_owners(system: RunningSystem) -> None:
    """Keys and secrets of a local system are readable by nobody else, and are not in its log."""
    for name in ("endpoints.json", "secrets.json"):
        assert (system.state / name).stat().st_mode & 0o777 == 0o600
    secrets, found, log = LocalSecrets.read(system.state), system.endpoints, system.log.read_text()
    for secret in (secrets.key_pepper, secrets.widget_secret, found.api_key, found.operator_key):
        assert secret not in log


@pytest.fixture
def started(system: RunningSystem, state_directory: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A `fairlead up` that shares the servers of the session's system: only its processes are its own."""
    found = system.endpoints
    assert found.simulators is not None
    given = {
        "FAIRLEAD_KAFKA": found.kafka,
        "FAIRLEAD_REDIS": found.redis,
        "FAIRLEAD_DATABASE": found.database,
        "FAIRLEAD_DISCOVERY_BASE_URL": found.simulators.tgi,
        "FAIRLEAD_FRONTIER_BASE_URL": found.simulators.openai,
        "FAIRLEAD_KAFKA_FETCH_MAX_WAIT_MS": "5",
    }
    command = [*FAIRLEAD, "up", "--quiet", "--port", "0", "--state", str(state_directory)]
    with subprocess.Popen(command, env=bare_environment() | given, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, state_directory
        finally:
            process.kill()


async def test_up_ends_without_a_trace(started: tuple[subprocess.Popen[str], Path]) -> None:
    """`fairlead up` with given addresses starts no server, is alone on its directory, and at SIGTERM leaves nothing."""
    process, state = started
    assert process.stdout is not None
    words = ""
    while "Ctrl-C stops everything" not in words:
        line = await asyncio.to_thread(process.stdout.readline)
        assert line, f"it ended early:\n{words}"
        words += line
    assert "/v1/chat/completions" in words

    second = await asyncio.to_thread(fairlead, "up", "--port", "0", "--state", str(state))
    assert second.returncode == 1
    assert "is in use by process" in second.stderr

    children = psutil.Process(process.pid).children(recursive=True)
    named = EndpointsFile.read(state).processes
    assert set(named) == {
        "gateway",
        "orchestrator",
        "agents-discovery",
        "agents",
        "dead-letters",
        "upkeep",
    }
    assert {child.pid for child in children} >= set(named.values())
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    assert EndpointsFile.read(state).processes == {}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition to hold."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
