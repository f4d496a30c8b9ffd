"""The catalogue of numbers, and the port that serves them.

Names are `fairlead_<noun>_<unit>[_total]`, in base units. Labels have few values: never a tenant, a
conversation or a turn. The comment above each number says what it tells an operator.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

Door = Literal["http", "websocket", "openai", "slack", "webhook", "batch", "replay"]
"""Where a turn came in. A channel is chosen by the caller and has no place in a label; a door is ours."""

_WAITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
_WHOLE_TURNS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 75, 120, 300, 600)

# Intake ---------------------------------------------------

# How much work comes in. Accepted less settled, over time, is what is still open.
TURNS_ACCEPTED = Counter("fairlead_turns_accepted_total", "Turns acknowledged to a producer", ["door"])

# Why visitors are turned away, by problem code. `kafka_unavailable` rising means nothing can be accepted.
TURNS_REFUSED = Counter("fairlead_turns_refused_total", "Turns refused at a door", ["door", "reason"])

# Endings --------------------------------------------------

# How turns end. Anything but `answered` rising is what visitors notice.
TURNS_SETTLED = Counter("fairlead_turns_settled_total", "Turns that reached their end", ["state", "agent"])

# How long a visitor waits for a whole answer, from acceptance to the terminal frame.
TURN_DURATION = Histogram(
    "fairlead_turn_duration_seconds", "Acceptance to end of a turn", ["state"], buckets=_WHOLE_TURNS
)

# How long a visitor stares at nothing: from acceptance to the first frame with content.
FIRST_FRAME = Histogram(
    "fairlead_first_frame_seconds", "Acceptance to the first visible frame", ["agent"], buckets=_WHOLE_TURNS
)

# How long a turn lies on its lane. Near the queue deadline the lane needs workers; past it, the frontier
# answers.
QUEUE_WAIT = Histogram("fairlead_queue_wait_seconds", "Dispatch to claim", ["lane"], buckets=_WAITS)

# Models ---------------------------------------------------

# Model calls that answer turns. Divided by settled turns: the amplification, never above 2. Ordinal 2 alone:
# the fallback bill.
MODEL_CALLS = Counter(
    "fairlead_model_calls_total",
    "Model calls for answers, by how they ended",
    ["model", "ordinal", "outcome"],
)

# Time to a model's first token, by the call's number in the turn. Near its clock, fallbacks begin.
MODEL_FIRST_TOKEN = Histogram(
    "fairlead_model_first_token_seconds", "Request to first token", ["model", "ordinal"], buckets=_WAITS
)

# Why the fallback had to answer. A silent degradation: visitors see nothing of it, so this must be watched.
FALLBACKS = Counter("fairlead_fallbacks_total", "Turns handed to their fallback call", ["reason"])

# Answers that broke off after visible text. Visitors see these.
TRUNCATIONS = Counter("fairlead_truncations_total", "Turns cut after visible text", ["reason"])

# Turns taken over from a lost or late worker. A burst means workers die or a lane is empty.
RESCUES = Counter("fairlead_rescues_total", "Turns taken over from their owner", ["reason"])

# Streaming ------------------------------------------------

# Frames shown, and the Redis calls that carried them. Frames per flush falling to 1 under load is wasted CPU.
FRAMES_PUBLISHED = Counter("fairlead_frames_published_total", "Frames handed to Redis")
FLUSHES_PUBLISHED = Counter("fairlead_flushes_published_total", "Calls to Redis that published frames")

# A worker that lost its turn tried to write, and was stopped. Single ones follow pauses; many mean that leases
# are too short.
STALE_FENCE_REFUSALS = Counter("fairlead_stale_fence_refusals_total", "Writes of a former owner that were refused")

# Workers --------------------------------------------------

# How full a worker is. All of a lane's workers at capacity: scale the lane.
LIVE_TURNS = Gauge("fairlead_live_turns", "Turns this worker is carrying")
TURN_CAPACITY = Gauge("fairlead_turn_capacity", "Turns this worker may carry at a time")

# How late this process's event loop runs. Above a tenth of a second every stream of the process stutters.
EVENT_LOOP_LAG = Histogram("fairlead_event_loop_lag_seconds", "Lateness of the event loop", buckets=_WAITS)

# Upkeep ---------------------------------------------------

# Events that are true but not yet on Kafka, and the age of the oldest. Growing: Kafka or its relay is stuck.
OUTBOX_WAITING = Gauge("fairlead_outbox_waiting", "Outbox rows not yet published")
OUTBOX_OLDEST = Gauge("fairlead_outbox_oldest_seconds", "Age of the oldest unpublished outbox row")

# Turns that left their lane, by closed reason.
DEAD_LETTERS = Counter("fairlead_dead_letters_total", "Dead letters written", ["reason"])

# Dead letters in an operator's hands, and how long the oldest has been waiting for one.
DEAD_LETTERS_UNANSWERED = Gauge("fairlead_dead_letters_unanswered", "Dead letters nobody has answered")
DEAD_LETTERS_OLDEST = Gauge("fairlead_dead_letters_oldest_seconds", "Age of the oldest unanswered dead letter")

# Dead letters answered anew by replay jobs, by what became of them. `failed` rising: the cause is not mended yet.
REPLAYS = Counter("fairlead_replays_total", "Dead letters that replay jobs went through", ["mode", "outcome"])

# Whether the loops that rescue and relay still run. A last success long ago: restart upkeep, then look why.
UPKEEP_SWEEPS = Counter("fairlead_upkeep_sweeps_total", "Sweeps of upkeep", ["sweep", "outcome"])
UPKEEP_LAST_SUCCESS = Gauge(
    "fairlead_upkeep_last_success_timestamp_seconds", "Unix time of a sweep's last success", ["sweep"]
)

# Gateway --------------------------------------------------

# Open streams, by door. The load of a gateway; falls to 0 while it drains.
WATCHERS = Gauge("fairlead_gateway_watchers", "Streams being watched", ["door"])

# Frames written to watchers.
FRAMES_SENT = Counter("fairlead_gateway_frames_sent_total", "Frames sent to watchers", ["door"])

# Watchers that came back with a position. A burst means connections break: look at proxies and restarts.
RESUMES = Counter("fairlead_gateway_resumes_total", "Streams resumed from a frame", ["door"])

# Why a watcher had to read again instead of following live: `gap`, `lagging` and `resynced` mean lost messages.
REREADS = Counter("fairlead_gateway_rereads_total", "Times a watcher read log and ledger again", ["why"])

# Watchers cut because they did not read.
CUT_WATCHERS = Counter("fairlead_gateway_cut_watchers_total", "Watchers cut because they did not read", ["door"])


Health = Callable[[], Mapping[str, str | None]]
"""Names each part of a process that must make progress; None means it does, a sentence says what is stuck."""


def render_metrics() -> tuple[bytes, str]:
    """Return every number as Prometheus reads it, and the content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


@asynccontextmanager
async def serve_metrics(port: int, health: Health, *, host: str = "0.0.0.0") -> AsyncGenerator[int | None]:
    """Serve `/metrics` and `/healthz` inside the context; yield the port, or None when `port` is -1.

    `/healthz` is 200 while every part makes progress and 503, naming what is stuck, when one does not.
    """
    if port < 0:
        yield None
        return
    runner = web.AppRunner(_app(health), access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        yield bound
    finally:
        await runner.cleanup()


def _app(health: Health) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        body, content_type = render_metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        parts = dict(health())
        stuck = {name: sentence for name, sentence in parts.items() if sentence is not None}
        body = {"status": "stuck" if stuck else "ok", "parts": parts}
        return web.json_response(body, status=503 if stuck else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app
