"""What the README shows is run as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.system import RunningSystem
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _against(system: RunningSystem, code: str) -> str:
    return code.replace("localhost:8080", urlsplit(system.endpoints.gateway).netloc)


def test_the_python_example_prints_an_answer(system: RunningSystem) -> None:
    """The OpenAI client of the README, pointed at a running system, streams an HTML answer."""
    [example] = _blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", f"KEY = {system.endpoints.api_key!r}\n{_against(system, example)}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("<p>")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_submits_a_turn_and_reads_its_frames(system: RunningSystem) -> None:
    """The two curl commands, run by a shell, give a 202 body and a stream that ends in [DONE]."""
    [example] = [block for block in _blocks("sh") if "curl -X POST" in block]
    submit, watch = _against(system, example).split("curl -N")
    env = {**os.environ, "KEY": system.endpoints.api_key}

    submitted = subprocess.check_output(["sh", "-ec", submit], env=env, text=True, timeout=60)
    env["TURN"] = json.loads(submitted)["turn_id"]
    frames = subprocess.check_output(["sh", "-ec", f"curl -N{watch}"], env=env, text=True, timeout=60)

    assert frames.rstrip().endswith("data: [DONE]")
    assert '"phase":"done"' in frames


def test_every_setting_and_command_it_names_exists() -> None:
    """Variables are real settings, `fairlead` commands and `make` targets can be called."""
    known = {f"FAIRLEAD_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"FAIRLEAD_[A-Z_]+", README)) <= known
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
    for command in set(re.findall(r"fairlead (up|chat|doctor|migrate|serve)", README)):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_every_link_leads_somewhere() -> None:
    """Relative links of the README and of ARCHITECTURE name files that exist."""
    for page in ("README.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"
