"""`fairlead kb add` on a real database."""

import asyncio
import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cli.main import app
from infra.postgres.engine import create_engine
from infra.postgres.tenants import Tenants


@pytest.fixture
def installation(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory from which the database with the tenant `acme` is reached, and its folder of documents."""

    async def create() -> None:
        engine = create_engine(database_url, pool_size=1)
        await Tenants(engine, pepper=SecretStr("")).create("acme", name="Acme")
        await engine.dispose()

    asyncio.run(create())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_DATABASE", database_url)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "prices.md").write_text("# Prices\n\nOne site costs 900 €.\n", encoding="utf-8")
    return tmp_path / "docs"


def test_documents_are_added_and_told(installation: Path) -> None:
    """What is added is told for people and for programs, bad files end with status 1, refusals name the setting."""
    runner = CliRunner()
    added = runner.invoke(app, ["kb", "add", "docs", "--tenant", "acme"])
    assert added.exit_code == 0
    assert "added     docs/prices.md  1 piece" in added.stderr
    assert added.stdout.startswith("1 added (1 piece). Version 1-")

    (installation / "evil.pdf").write_bytes(b"no pdf")
    told = runner.invoke(app, ["kb", "add", "docs", "http://127.0.0.1:8000/", "--tenant", "acme", "--json"])
    assert told.exit_code == 1
    report = json.loads(told.stdout)
    assert (report["unchanged"], report["failed"], report["tenant"]) == (1, 2, "acme")
    problems = {one["source"]: one.get("problem", "") for one in report["documents"]}
    assert "FAIRLEAD_KNOWLEDGE_HOSTS" in problems["http://127.0.0.1:8000/"]


def test_what_cannot_begin_is_told(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown tenant and a setting that does not fit end in a sentence."""
    runner = CliRunner()
    nobody = runner.invoke(app, ["kb", "add", str(installation), "--tenant", "nobody"])
    assert "there is no tenant 'nobody'" in str(nobody.exception)
    monkeypatch.setenv("FAIRLEAD_KNOWLEDGE_HOSTS", "http://wiki")
    wrong = runner.invoke(app, ["kb", "add", str(installation), "--tenant", "acme"])
    assert "FAIRLEAD_KNOWLEDGE_HOSTS: 'http://wiki' is neither" in str(wrong.exception)
