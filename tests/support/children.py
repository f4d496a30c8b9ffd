"""Real processes of the product, as children of a test."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil


@asynccontextmanager
async def child(*command: str, env: Mapping[str, str], log: Path) -> AsyncGenerator[psutil.Process]:
    """Run `fairlead serve …` while the block lasts; SIGTERM at its end must be enough."""
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: ASYNC220  (starting is quick)
            [sys.executable, "-m", "cli.main", "serve", *command],
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    tail = await asyncio.to_thread(lambda: log.read_text()[-3000:])
    assert code == 0, f"{command} ended with {code} instead of 0 on SIGTERM:\n{tail}"
