"""Generated requests against the OpenAPI document: answered as documented, never with a 5xx."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.worker import Worker

ARGUMENTS = (
    "--max-examples=6",
    "--seed=20261",
    "--generation-database=none",
    "--continue-on-failure",
    "--no-color",
    "--request-timeout=20",
    # A schema cannot say "not blank, no NUL, at least one message of the user": such requests may be refused.
    "--exclude-checks=positive_data_acceptance",
)

OPERATORS = "^/v1/(dead-letters|replay-jobs|audit|knowledge)"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", [f"--exclude-path-regex={OPERATORS}", f"--include-path-regex={OPERATORS}"])
async def test_generated_requests_are_answered_as_documented(
    gateway: Gateway, answering: Worker, tmp_path: Path, part: str
) -> None:
    """Hundreds of generated requests, valid and not, find no 5xx and no answer the document does not have."""
    gateway.parts.watcher._unknown = 0.0  # pyright: ignore[reportPrivateUsage]
    fuzzer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{gateway.url}/openapi.json",
        f"--header=Authorization: Bearer {gateway.operator_key}",
        *ARGUMENTS,
        part,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(fuzzer.communicate(), 240)
    report = out.decode()
    assert fuzzer.returncode == 0, report[-8_000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", report)
    assert generated is not None, report[-2_000:]
    assert int(generated[1]) == int(generated[2]) > 200
