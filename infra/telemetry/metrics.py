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

# Routing --------------------------------------------------

# Who decided, and whom for. `classifier` or `rules` where the policy says `frontier`: its router is down.
ROUTES = Counter("fairlead_routes_total", "Turns routed", ["agent", "router"])

# Why a router could not decide and the next one did: `not_served`, `skipped` after failures in a row, `timeout`,
# or how its model call failed; the classifier's are `not_loaded` and `unknown_words`. Visitors notice nothing; routes
# are coarser meanwhile.
ROUTING_FALLBACKS = Counter("fairlead_routing_fallbacks_total", "Routers that could not decide", ["reason"])

# How long deciding took. Every turn waits for it; at the policy's `routing.deadline` the next router decides.
ROUTING_DURATION = Histogram("fairlead_routing_seconds", "Time to a route", ["router"], buckets=_WAITS)

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

# Turns whose visitor read what rules and retrieval say, and no model. With models configured: both are away.
OFFLINE_ANSWERS = Counter("fairlead_offline_answers_total", "Turns answered without a model", ["agent", "state"])
# Answers that may not be shown, by what is wrong with them (docs/discovery.md lists the codes). Unseen ones fall back,
# the others are mended. One code rising: the model has drifted, or the prompt asks for it.
GUARD_REFUSALS = Counter("fairlead_guard_refusals_total", "Faults found in answers", ["agent", "check"])

# Answers ended or completed by us: what visitors saw is well formed, but part of it is not the model's.
ANSWERS_MENDED = Counter("fairlead_answers_mended_total", "Answers ended or completed by us", ["agent", "why"])

# How sure the primary was, calibrated: of the decisions at 0.9 nine in ten are right. Mass that moves down is drift.
DECISION_CONFIDENCE = Histogram(
    "fairlead_decision_confidence_ratio", "Calibrated confidence of decisions", buckets=[n / 20 for n in range(1, 21)]
)

# Turns taken over from a lost or late worker. A burst means workers die or a lane is empty.
RESCUES = Counter("fairlead_rescues_total", "Turns taken over from their owner", ["reason"])

# Where a process's own model is, 1 for its state: `unloaded`, `loading`, `ready` or `failed`, which lasts until the
# process ends. Those that failed ask the frontier for every turn. Only where the dialect is `local`.
LOCAL_MODEL_STATE = Gauge("fairlead_local_model_state", "State of this process's own model", ["state"])

# Loads begun. Above 1 in one process cannot be; few processes and a growing sum: they are restarted again and again.
LOCAL_MODEL_LOADS = Counter("fairlead_local_model_loads_total", "Loads of this process's own model that were begun")
# Lanes that skip a primary that keeps failing: 0 closed, 1 probing, 2 open. Open is what the frontier is paid for.
BREAKER_STATE = Gauge("fairlead_breaker_state", "0 the primary is asked, 1 probed, 2 skipped", ["lane"])

# How often a breaker opened. Many in an hour: the primary comes and goes; look at its server.
BREAKER_OPENINGS = Counter("fairlead_breaker_openings_total", "Breakers opened by failures", ["lane"])

# Probes of open lanes, by outcome. Only `failed`: the primary is still down. `unused` lost its turn to somebody else.
BREAKER_PROBES = Counter("fairlead_breaker_probes_total", "Probes of open lanes", ["lane", "outcome"])

# Turns that went straight to their fallback, and why: `breaker_open` is an open lane.
PRIMARIES_SKIPPED = Counter("fairlead_primaries_skipped_total", "Primaries not asked", ["lane", "reason"])

# What answers link to, `diagram` or `image`, and what became of it. An answer without its link is whole otherwise.
ASSETS_MADE = Counter("fairlead_assets_made_total", "Diagrams and images for answers", ["kind", "outcome"])

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

# Turns that a worker found in the ledger because no hint brought them. Single ones are lost messages; a stream of
# them means that Redis, or the worker's Celery consumer, is in trouble. Visitors wait a second or two for each.
TURNS_FOUND = Counter("fairlead_turns_found_total", "Turns taken from the ledger without a hint", ["lane"])

# When each loop of a process last got through. Long ago: that loop hangs, and `/healthz` says so.
LOOP_LAST_PASS = Gauge(
    "fairlead_loop_last_pass_timestamp_seconds", "Unix time at which a loop last got through", ["loop"]
)

# How late this process's event loop runs. Above a tenth of a second every stream of the process stutters.
EVENT_LOOP_LAG = Histogram("fairlead_event_loop_lag_seconds", "Lateness of the event loop", buckets=_WAITS)

# Upkeep ---------------------------------------------------

# Events that are true but not yet on Kafka, and the age of the oldest. Growing: Kafka or its relay is stuck.
OUTBOX_WAITING = Gauge("fairlead_outbox_waiting", "Outbox rows not yet published")
OUTBOX_OLDEST = Gauge("fairlead_outbox_oldest_seconds", "Age of the oldest unpublished outbox row")

# Turns that left their lane, by closed reason.
DEAD_LETTERS = Counter("fairlead_dead_letters_total", "Dead letters written", ["reason"])

# Where the dead-letter worker sent them: to the frontier, or `parked` for an operator.
DEAD_LETTERS_ROUTED = Counter("fairlead_dead_letters_routed_total", "Dead letters routed", ["to"])

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

# What retention deletes, by kind. Flat at 0 while tables grow: read the lines of upkeep's loop `retention`.
FORGOTTEN = Counter("fairlead_forgotten_total", "Rows forgotten because they are old", ["kind"])

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
async def serve_metrics(
    port: int, health: Health, *, degraded: Health = dict, host: str = "0.0.0.0"
) -> AsyncGenerator[int | None]:
    """Serve `/metrics` and `/healthz` inside the context; yield the port, or None when `port` is -1.

    `/healthz` is 200 while every part makes progress and 503, naming what is stuck, when one does not. What
    `degraded` names is told as well but stays 200: the process does its work in another way.
    """
    if port < 0:
        yield None
        return
    runner = web.AppRunner(_app(health, degraded), access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        yield bound
    finally:
        await runner.cleanup()


def _app(health: Health, degraded: Health) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        body, content_type = render_metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        parts, lesser = dict(health()), dict(degraded())
        stuck = any(sentence is not None for sentence in parts.values())
        weak = any(sentence is not None for sentence in lesser.values())
        body = {"status": "stuck" if stuck else "degraded" if weak else "ok", "parts": parts | lesser}
        return web.json_response(body, status=503 if stuck else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app
