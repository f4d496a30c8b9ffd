"""Looking at what an installation stands on. Each check returns its findings and raises nothing."""

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from openai import AsyncOpenAI, OpenAIError
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from cli.endpoints import EndpointsFile
from cli.findings import Finding, fail, ok, warn
from cli.http import HttpFailed, request
from infra.embedded.broker import find_library
from infra.embedded.errors import EmbeddedError, WheelMissingError
from infra.embedded.server import package_folder
from infra.policy import PolicyInvalid, load_policy
from infra.postgres.engine import create_engine
from infra.postgres.migrate import pending
from infra.redis.client import create_redis
from infra.settings import Settings
from schemas.completions import ProviderError
from schemas.names import TOPICS
from schemas.policy import Policy
from workers.providers.local_model import LocalFiles
from workers.providers.tgi import TgiProvider
from workers.providers.wire import Wire

SECONDS: Final = 8.0
_OLDEST_PYTHON: Final = (3, 11)
_LITTLE_DISK: Final = 2 * 2**30
_TOO_LITTLE_DISK: Final = 200 * 2**20
_OLDEST_REDIS: Final = (6, 2)


def python_version() -> Finding:
    """Whether this Python will do."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return fail("Python", version, mend="Install Python 3.11 or newer, then run `make setup PY=python3.x`.")
    return ok("Python", version)


def free_disk(state: Path) -> Finding:
    """Whether there is room for what is written here."""
    place = next(path for path in (state.resolve(), *state.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    says, mend = f"{free / 2**30:.1f} GiB free", "Make room on this disk, or choose another place with --state."
    if free < _TOO_LITTLE_DISK:
        return fail("disk", says, mend=mend)
    return warn("disk", says, mend=mend) if free < _LITTLE_DISK else ok("disk", says)


def embedded(name: str, package: str) -> Finding:
    """Whether a server whose address is not given can be started here."""
    try:
        if name == "Kafka":
            find_library()
        elif package_folder(package) is None:
            raise WheelMissingError(server=name, package=package)
    except EmbeddedError as error:
        return fail(name, str(error), mend="Run `make setup`, or give an address.")
    note = " in memory, for trying out" if name == "Kafka" else ""
    return ok(name, f"no address given: `fairlead up` starts one{note}")


async def kafka(address: str) -> Finding:
    """Whether Kafka answers and has the topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, request_timeout_ms=int(1000 * SECONDS))
    try:
        async with asyncio.timeout(SECONDS):
            await consumer.start()
            found = cast("set[str]", await consumer.topics())
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        return _out_of_reach("Kafka", address, error, setting="FAIRLEAD_KAFKA")
    finally:
        await consumer.stop()
    missing = sorted(set(TOPICS) - found)
    if missing:
        mend = "Create them with `fairlead topics`."
        return fail("Kafka", f"{address} answers but lacks the topics {', '.join(missing)}", mend=mend)
    return ok("Kafka", f"{address} answers, all topics are there")


async def redis(url: str) -> Finding:
    """Whether Redis answers, is recent enough and forgets nothing of its own accord."""
    place = _place(url)
    try:
        client = create_redis(url, connections=1)
        try:
            async with asyncio.timeout(SECONDS):
                info = cast("Mapping[str, object]", await client.info())
        finally:
            await client.aclose()
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        return _out_of_reach("Redis", place, error, setting="FAIRLEAD_REDIS")
    version, policy = str(info.get("redis_version", "0")), str(info.get("maxmemory_policy", "unknown"))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        return fail("Redis", f"{place} is version {version}", mend="Use Redis 6.2 or newer.")
    if policy != "noeviction":
        mend = "Set maxmemory-policy to noeviction: an evicted fence or lane costs answers."
        return warn("Redis", f"{place} answers, version {version}, but evicts keys ({policy})", mend=mend)
    return ok("Redis", f"{place} answers, version {version}, evicts nothing")


async def postgres(url: str) -> Finding:
    """Whether PostgreSQL lets us in, has pgvector, and has the schema of this version."""
    place = _place(url)
    try:
        async with asyncio.timeout(SECONDS):
            version, vector = await _postgres_facts(url)
            behind = await pending(url)
    except (SQLAlchemyError, OSError, TimeoutError, ValueError) as error:
        return _out_of_reach("PostgreSQL", place, error, setting="FAIRLEAD_DATABASE")
    if vector is None:
        mend = "Install pgvector on that server."
        return fail("PostgreSQL", f"{place} is version {version} but has no pgvector", mend=mend)
    if behind:
        mend = "Run `fairlead migrate`."
        return fail("PostgreSQL", f"{place} has an older schema than this version, or none", mend=mend)
    return ok("PostgreSQL", f"{place} answers, version {version}, pgvector {vector}, schema up to date")


async def _postgres_facts(url: str) -> tuple[str, str | None]:
    engine = create_engine(url, pool_size=1, name="fairlead-doctor")
    try:
        async with engine.connect() as connection:
            version = await connection.scalar(text("SHOW server_version"))
            vector = await connection.scalar(
                text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
            )
            return str(version).split()[0], vector
    finally:
        await engine.dispose()


async def models(settings: Settings) -> list[Finding]:
    """Whether the model servers that are configured answer, and know what they will be asked for."""
    try:
        policy = load_policy(settings.policy)
    except PolicyInvalid as error:
        return [fail("policy", str(error), mend="Correct the file, or take FAIRLEAD_POLICY away.")]
    found: list[Finding] = []
    if settings.discovery_dialect == "local":
        found.append(local_model(settings, policy))
    elif settings.discovery_base_url:
        found.append(await _discovery(settings, settings.discovery_base_url, policy))
    if settings.frontier_base_url or settings.frontier_api_key.get_secret_value():
        found.append(await _frontier(settings, policy))
    return found


def local_model(settings: Settings, policy: Policy) -> Finding:
    """Whether the model that agent processes load themselves is here, as far as a look tells: nothing is loaded."""
    files = LocalFiles.of(settings, policy)
    if lacking := files.lacking():
        mend = "Until then the frontier answers its turns. Mend it, then restart the agents: none loads a second time."
        return fail("fine-tuned model", f"it cannot be loaded: {lacking}", mend=mend)
    adapters = ", ".join(files.adapters) or "none"
    return ok("fine-tuned model", f"{files.model} is here to be loaded by each agent process, adapters {adapters}")


def no_models() -> Finding:
    """Nothing is configured and nothing simulated."""
    return ok("models", "none configured: `fairlead up` simulates them, other processes answer offline")


async def _discovery(settings: Settings, url: str, policy: Policy) -> Finding:
    key = settings.discovery_api_key.get_secret_value() or "-"
    if settings.discovery_dialect == "openai":
        return await _openai("fine-tuned model", url, key, _names(policy, "discovery"), "FAIRLEAD_DISCOVERY_BASE_URL")
    base = url.rstrip("/").removesuffix("/v1")
    wire = Wire()
    adapters = {model.adapter for model in policy.models.values() if model.backend == "discovery" and model.adapter}
    try:
        await asyncio.to_thread(request, f"{base}/health", seconds=SECONDS)
        await TgiProvider(name="tgi", wire=wire, base_url=base, api_key=key, known_adapters=adapters).canary()
    except (HttpFailed, ProviderError) as error:
        mend = "Look at the model server's log, FAIRLEAD_DISCOVERY_BASE_URL and the adapters it was started with."
        return fail("fine-tuned model", str(error), mend=mend)
    finally:
        await wire.aclose()
    return ok("fine-tuned model", f"{_place(url)} answers, adapters {', '.join(sorted(adapters)) or 'none'}")


async def _frontier(settings: Settings, policy: Policy) -> Finding:
    key = settings.frontier_api_key.get_secret_value() or "-"
    url = settings.frontier_base_url
    return await _openai("frontier model", url, key, _names(policy, "frontier"), "FAIRLEAD_FRONTIER_BASE_URL")


async def _openai(name: str, url: str | None, key: str, wanted: set[str], setting: str) -> Finding:
    """Whether a server with OpenAI's API answers and lists the models."""
    base = url if url is None or urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
    place = _place(url) if url else "the official API"
    try:
        async with AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=SECONDS) as client:
            served = {model.id async for model in client.models.list()}
    except (OpenAIError, OSError, ValueError) as error:
        mend = f"Look at {setting} and its key, and at the server's log."
        return fail(name, f"{place} cannot be used: {type(error).__name__}", mend=mend)
    missing = sorted(wanted - served)
    if missing:
        mend = "Name what it serves in a copy of the policy, and point FAIRLEAD_POLICY at it."
        return warn(name, f"{place} answers, but does not list {', '.join(missing)}", mend=mend)
    return ok(name, f"{place} answers and serves {', '.join(sorted(wanted))}")


def _names(policy: Policy, backend: str) -> set[str]:
    return {model.adapter or model.model for model in policy.models.values() if model.backend == backend}


async def gateway(found: EndpointsFile) -> Finding:
    """Whether the gateway of a local system is ready."""
    try:
        body = await asyncio.to_thread(request, f"{found.gateway}/readyz", seconds=SECONDS)
    except HttpFailed as error:
        mend = "Read the log in the state directory; start `fairlead up` again."
        return fail("gateway", str(error), mend=mend)
    ready = cast("Mapping[str, Mapping[str, str]]", json.loads(body))
    return ok("gateway", f"{found.gateway} is ready: {', '.join(ready.get('dependencies', {}))}")


def _out_of_reach(name: str, place: str, error: Exception, *, setting: str) -> Finding:
    reason = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
    mend = f"Start it, open the way to it, or correct {setting}."
    return fail(name, f"{place} cannot be used: {reason}", mend=mend)


def _place(url: str) -> str:
    """Host and port of an address: it may hold a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
