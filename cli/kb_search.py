"""Messages looked up in a knowledge base as the researcher does it, printed for people or programs."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import typer
from pydantic import BaseModel, ValidationError

from cli.failure import CommandFailed
from cli.state import DEFAULT_STATE, local_settings
from cli.terminal import harmless
from infra.settings import Settings
from schemas.knowledge import Retrieved

_PATIENCE = 30.0
"""Seconds for one message; nobody waits for an answer here."""

_EXCERPT = 160


class Query(BaseModel):
    """One message."""

    id: str | int | None = None
    text: str


def one_query(text: str) -> list[Query]:
    """Return one text as a query without an id."""
    return [Query(text=text)]


def read_queries(path: Path) -> list[Query]:
    """Return the queries of a file of JSON lines.

    Raises:
        CommandFailed: it cannot be read, or a line is none.
    """
    found: list[Query] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                found.append(_query(path, number, line))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}.", status=2) from error
    return found


def run(queries: Sequence[Query], *, tenant: str, most: int, state: Path | None, json_wanted: bool) -> None:
    """Look each up and print what was found.

    Raises:
        CommandFailed: the knowledge base cannot be asked, or the tenant has none.
    """
    if state is None and not (DEFAULT_STATE / "endpoints.json").exists():
        settings = Settings()
    else:
        settings = local_settings(state or DEFAULT_STATE)
    asyncio.run(_search(queries, settings, tenant=tenant, most=most, json_wanted=json_wanted))


async def _search(queries: Sequence[Query], settings: Settings, *, tenant: str, most: int, json_wanted: bool) -> None:
    from infra.embeddings.configured import configured_embedder
    from infra.policy import load_policy
    from infra.postgres.engine import create_engine
    from workers.researcher.researcher import Researcher

    policy = load_policy(settings.policy).knowledge.model_copy(update={"deadline": _PATIENCE, "passages": most})
    engine = create_engine(settings.database.get_secret_value(), pool_size=2, name="fairlead-cli")
    try:
        researcher = Researcher(engine, policy=policy, embedder=configured_embedder(settings))
        for query in queries:
            found = await researcher.retrieve(tenant, query.text, language="")
            _check(found, tenant)
            typer.echo(json.dumps(as_line(query, found)) if json_wanted else told(query, found))
    finally:
        await engine.dispose()


def _check(found: Retrieved, tenant: str) -> None:
    if found.state == "off":
        raise CommandFailed(f"Tenant '{harmless(tenant)}' has no knowledge base: fill one with `fairlead kb add`.")
    if found.state in ("late", "failed"):
        raise CommandFailed("The knowledge base cannot be asked: see `fairlead doctor`.")


def as_line(query: Query, found: Retrieved) -> dict[str, object]:
    """Return what was found for programs."""
    results = [{"source": one.source, "heading": one.heading, "score": round(one.score, 6)} for one in found.passages]
    return {"id": query.id, "results": results, "answerable": found.answerable, "score": round(found.score, 4)}


def told(query: Query, found: Retrieved) -> str:
    """Return what was found for people."""
    verdict = "Probably answered" if found.answerable else "Probably not answered"
    lines = [f"{query.text}", f"{verdict} (certainty {found.score:.2f}) by snapshot {found.snapshot}."]
    for number, one in enumerate(found.passages, 1):
        place = " > ".join(part for part in (one.source, one.heading) if part)
        lines.append(f"{number:>3}. {place}")
        lines.append(f"     {' '.join(one.text.split())[:_EXCERPT]}")
    return harmless("\n".join(lines))


def _query(path: Path, number: int, line: str) -> Query:
    try:
        return Query.model_validate_json(line)
    except ValidationError as error:
        raise CommandFailed(f"{path}, line {number}: no JSON object with `text`, and `id` if any.", status=2) from error
