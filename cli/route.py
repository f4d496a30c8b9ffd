"""`fairlead route`: who would answer a message, and why, without answering it."""

import asyncio
import html
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cli.failure import CommandFailed
from cli.state import local_settings
from cli.terminal import harmless
from infra.policy import load_policy
from infra.postgres.inbox import PastTurn, Prepared
from infra.settings import Settings
from schemas.agents import lane_of
from schemas.ids import TurnId
from schemas.knowledge import Retrieved
from schemas.policy import Policy
from schemas.routing_policy import RouterName
from schemas.turns import HistoryMessage, MessageText
from workers.orchestrator.confirmation import Case, confirm
from workers.orchestrator.language import Languages
from workers.orchestrator.routing import Routing, routing_of

_NOBODY: Final = TurnId("00000000-0000-0000-0000-000000000000")


class Line(BaseModel):
    """One message to route."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int | None = None
    text: MessageText
    history: tuple[HistoryMessage, ...] = ()


class Decided(BaseModel):
    """Where a message would go. The knowledge base is not asked: what it has may still change the agent."""

    id: str | int | None
    agent: str
    lane: str
    why: str
    confidence: float
    router: str
    language: str
    phase: str
    intent: str
    signals: list[dict[Literal["kind", "quote"], str]]
    repeats: int | None
    risk: str
    frontier_only: bool
    policy: int
    ms: float


def route(text: str | None, *, file: Path | None, state: Path, router: RouterName | None, as_json: bool) -> int:
    """Decide for one message or for each line of a file; return the exit status: 1 if a line could not be read.

    Raises:
        CommandFailed: neither or both were given, or the file cannot be read.
    """
    if (text is None) == (file is None):
        raise CommandFailed("Give a message, or --file with one JSON object {id, text, history?} a line.", status=2)
    settings = _settings(state)
    policy = load_policy(settings.policy)
    if router is not None:
        policy = policy.model_copy(update={"routing": policy.routing.model_copy(update={"router": router})})
    lines = _lines(file) if file is not None else iter([_read(json.dumps({"text": text}), 1)])
    return asyncio.run(_route(lines, policy, settings, as_json=as_json))


async def _route(lines: Iterator[Line | str], policy: Policy, settings: Settings, *, as_json: bool) -> int:
    routing, client = routing_of(policy, settings)
    languages = Languages(policy.routing.languages, clear=policy.routing.clear)
    await languages.begin()
    failed = 0
    try:
        for line in lines:
            if isinstance(line, str):
                failed += 1
                sys.stderr.write(f"{harmless(line)}\n")
                continue
            decided = await _decide(line, routing, languages, policy)
            sys.stdout.write(f"{decided.model_dump_json()}\n" if as_json else _told(decided))
            sys.stdout.flush()
    finally:
        if client is not None:
            await client.aclose()
    return 1 if failed else 0


async def _decide(line: Line, routing: Routing, languages: Languages, policy: Policy) -> Decided:
    turn = Prepared(
        turn_id=_NOBODY,
        tenant="",
        conversation_id="",
        seq=1,
        epoch=0,
        text=line.text,
        channel="cli",
        past=pairs(line.history),
        brought=tuple((message.role, message.text) for message in line.history),
        traceparent=None,
    )
    started = time.perf_counter()
    language = await languages.of(turn)
    found = await routing.find(turn, within=policy.routing.deadline)
    first = not any(past.shown_html for past in turn.past)
    agent, why = confirm(Case(found, Retrieved(), policy.routing, policy.default_agent, first))
    return Decided(
        id=line.id,
        agent=agent.value,
        lane=lane_of(agent).value,
        why=why,
        confidence=found.confidence,
        router=found.router,
        language=found.language or language,
        phase=found.phase.value,
        intent=found.intent,
        signals=[{"kind": signal.kind.value, "quote": signal.quote} for signal in found.signals],
        repeats=found.repeats,
        risk=found.risk.value,
        frontier_only=found.risk.frontier_only,
        policy=policy.version,
        ms=round(1000 * (time.perf_counter() - started), 2),
    )


def pairs(history: tuple[HistoryMessage, ...]) -> tuple[PastTurn, ...]:
    """Return a history as the turns it would have been: what was asked, and what was answered to it."""
    turns: list[PastTurn] = []
    for message in history:
        if message.role == "user":
            turns.append(PastTurn(message.text, "", None, len(turns) + 1))
        elif turns:
            last = turns[-1]
            shown = f"{last.shown_html} <p>{html.escape(message.text)}</p>".strip()
            turns[-1] = replace(last, shown_html=shown)
    return tuple(turns)


def _settings(state: Path) -> Settings:
    """Return the environment's settings; what a local system has simulated is used where it says nothing."""
    given = Settings()
    if given.served_backends:
        return given
    try:
        local = local_settings(state)
    except CommandFailed:
        return given
    return given.model_copy(update={name: getattr(local, name) for name in ("discovery_base_url", "frontier_base_url")})


def _lines(file: Path) -> Iterator[Line | str]:
    """Yield each line, or a sentence on why it cannot be read."""
    try:
        with file.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield _read(line, number)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file} cannot be read: {error}; give a file of JSON lines.") from error


def _read(line: str, number: int) -> Line | str:
    try:
        return Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        return f"Line {number} is left out: {where}: {first['msg']}."


def _told(decided: Decided) -> str:
    facts = [
        decided.language,
        decided.phase,
        decided.intent,
        *(f"signal {signal['kind']}" for signal in decided.signals),
    ]
    facts += [f"repeats turn {decided.repeats}"] if decided.repeats is not None else []
    facts += [f"risk {decided.risk}"] if decided.risk != "none" else []
    told = [
        f"{decided.agent}  {decided.confidence:.2f} sure, {decided.ms:.1f} ms, by {decided.router}",
        f"  {decided.why}",
        f"  {', '.join(fact.replace('_', ' ') for fact in facts if fact)}",
    ]
    name = [] if decided.id is None else [f"{decided.id}:"]
    return "".join(f"{harmless(line)}\n" for line in (*name, *told))
