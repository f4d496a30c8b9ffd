"""Builds the application and runs it until it is told to stop."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import uvloop
from aiohttp import web

from infra.policy import load_policy
from infra.settings import Settings
from simulators.control import CONTROL, JOURNAL, Control, control_routes
from simulators.journal import Journal
from simulators.openai import MODELS, openai_routes
from simulators.pacing import Metronome, Pacing
from simulators.serving import METRONOME, PACING
from simulators.tgi import ADAPTERS, tgi_routes

Dialect: TypeAlias = Literal["tgi", "openai"]

DEFAULT_MODELS: dict[Dialect, tuple[str, ...]] = {
    "tgi": ("discovery",),
    "openai": ("frontier", "frontier-lite", "discovery"),
}
_LARGEST_BODY = 2_000_000
_PATIENCE_SECONDS = 0.5


def create_app(
    dialect: Dialect, *, pacing: Pacing | None = None, models: Sequence[str] | None = None
) -> web.Application:
    """The simulator as an application. `models` are the served model names, for TGI the loaded adapters.

    Run it with `handler_cancellation=True`, or clients that hang up are noticed late.
    """
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[CONTROL] = Control()
    app[JOURNAL] = Journal()
    app[METRONOME] = Metronome()
    app[PACING] = pacing or Pacing()
    served = tuple(DEFAULT_MODELS[dialect] if models is None else models)
    match dialect:
        case "tgi":
            app[ADAPTERS] = frozenset(served)
            app.add_routes(tgi_routes())
        case "openai":
            app[MODELS] = served
            app.add_routes(openai_routes())
    app.add_routes(control_routes())
    app.on_response_prepare.append(_wear_no_badge)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, *, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """Serve `app` while the context lasts; gives its base URL, `http://host:port`."""
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=_PATIENCE_SECONDS,
        keepalive_timeout=75,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        await runner.cleanup()


def run(
    dialect: Dialect,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    port_file: Path | None = None,
    first_token_ms: float = 120,
    inter_token_ms: float = 15,
    models: Sequence[str] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `port_file` receives the base URL once the simulator listens."""
    pacing = Pacing(first_token_ms=first_token_ms, inter_token_ms=inter_token_ms)
    app = create_app(dialect, pacing=pacing, models=models or _models_of_policy(dialect))
    uvloop.run(_until_stopped(app, host, port, port_file))


def _models_of_policy(dialect: Dialect) -> Sequence[str]:
    """What the product will ask for, besides the defaults."""
    policy = load_policy(Settings().policy)
    adapters = [model.adapter for model in policy.models.values() if model.adapter]
    asked = adapters if dialect == "tgi" else [*policy.served_by("frontier"), *adapters]
    return list(dict.fromkeys([*DEFAULT_MODELS[dialect], *asked]))


async def _until_stopped(app: web.Application, host: str, port: int, port_file: Path | None) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with serving(app, host=host, port=port) as base_url:
        if port_file is not None:
            _announce(base_url, port_file)
        await stop.wait()


def _announce(base_url: str, port_file: Path) -> None:
    """Write the address in one step, so that whoever waits for the file never reads half of it."""
    draft = port_file.with_name(port_file.name + ".part")
    draft.write_text(base_url + "\n")
    draft.replace(port_file)


async def _wear_no_badge(_: web.Request, response: web.StreamResponse) -> None:
    """Real model servers do not name this framework."""
    response.headers.pop("Server", None)
