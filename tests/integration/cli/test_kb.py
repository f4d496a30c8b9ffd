"""`fairlead kb search` prints what the researcher finds, for people and for programs."""

import asyncio
import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cli.failure import CommandFailed
from cli.main import app
from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.tenants import Tenants
from tests.support.knowledge import document


@pytest.fixture
def filled(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with a small knowledge base, which the settings name, and an empty working directory."""

    async def fill() -> None:
        engine = create_engine(database_url, pool_size=1)
        for tenant in ("demo", "empty"):
            await Tenants(engine, pepper=SecretStr("pepper")).create(tenant, name=tenant)
        knowledge = KnowledgeBase(engine)
        said = "Paddle e-mails an invoice.\x1b[2J"
        await knowledge.put("demo", document("kb/billing.md", said, title="Billing", heading="Invoices"))
        await knowledge.put("demo", document("kb/sites.md", "Add a site in the settings.", title="Sites"))
        await Indexing(engine).publish("demo")
        await engine.dispose()

    asyncio.run(fill())
    monkeypatch.setenv("FAIRLEAD_DATABASE", database_url)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _told(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["kb", "search", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_one_text_and_many_queries(filled: Path) -> None:
    """Each query is one line of JSON with its id; a text alone is told for people, without control characters."""
    queries = filled / "queries.jsonl"
    queries.write_text(
        '{"id": "q1", "text": "How do I get an invoice?", "history": []}\n\n{"id": 2, "text": "add site"}\n'
    )
    lines = [json.loads(line) for line in _told("--queries", str(queries), "--json").splitlines()]
    assert [line["id"] for line in lines] == ["q1", 2]
    assert set(lines[0]) == {"id", "results", "answerable", "score"}
    assert set(lines[0]["results"][0]) == {"source", "heading", "score"}
    assert [line["results"][0]["source"] for line in lines] == ["kb/billing.md", "kb/sites.md"]
    assert lines[0]["results"][0]["heading"] == "Invoices"
    told = _told("invoice")
    assert "kb/billing.md > Invoices" in told
    assert "\x1b" not in told


def test_what_cannot_be_searched_is_said(filled: Path) -> None:
    """No text, a line that is no query, and a tenant without a knowledge base each end with a sentence."""
    broken = filled / "broken.jsonl"
    broken.write_text('{"id": 1}\n')
    for arguments, said in (
        ([], "Give either"),
        (["--queries", str(broken)], "line 1"),
        (["invoice", "--tenant", "empty"], "has no knowledge base"),
    ):
        with pytest.raises(CommandFailed, match=said):
            CliRunner().invoke(app, ["kb", "search", *arguments], catch_exceptions=False)
