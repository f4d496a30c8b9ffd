"""Every line of a process has one shape, and says nothing it must not."""

import io
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from infra.telemetry.logs import RedactingFormatter

PLANTED = "hunter2-PLANTED"


class Lines:
    """A logger of `logging` whose lines are kept."""

    def __init__(self, *, pretty: bool = False) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(RedactingFormatter(process="test", pretty=pretty))
        self.logger = logging.Logger("some.library")
        self.logger.addHandler(handler)

    @property
    def raw(self) -> str:
        """Return everything written."""
        return self._stream.getvalue()

    def read(self) -> list[dict[str, Any]]:
        """Return the lines as objects."""
        return [json.loads(line) for line in self.raw.splitlines()]


@pytest.fixture
def context() -> Iterator[None]:
    """Bind a turn, and forget it afterwards."""
    with structlog.contextvars.bound_contextvars(turn_id="t1", conversation_id="c1", tenant_id="acme"):
        yield


@pytest.mark.usefixtures("context")
def test_a_foreign_record_becomes_a_line_with_its_turn() -> None:
    """A library's record carries time, level, logger, process, turn and trace like our own."""
    lines = Lines()
    span = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=False))
    with trace.use_span(span):
        lines.logger.warning("broker %s is away for %d s", "kafka-1", 3, extra={"attempt": 2})
    (line,) = lines.read()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "broker kafka-1 is away for 3 s",
        "level": "warning",
        "logger": "some.library",
        "process": "test",
        "turn_id": "t1",
        "conversation_id": "c1",
        "tenant_id": "acme",
        "attempt": 2,
        "trace_id": f"{0xA1:032x}",
        "span_id": f"{0xB2:016x}",
    }


def test_arguments_are_redacted_before_they_are_a_message() -> None:
    """A value whose key vanishes in formatting is caught while the key is there."""
    lines = Lines()
    lines.logger.error("got %(text)s from %(user)s", {"text": PLANTED, "user": "u1"})
    lines.logger.error("row %s", {"password": PLANTED, "id": 7})
    lines.logger.error("call %s %r", ("a", {"messages": [PLANTED]}), f"Bearer {PLANTED}")
    lines.logger.error("plain", extra={"prompt": PLANTED, "nested": {"api_key": PLANTED}})
    assert PLANTED not in lines.raw
    assert lines.read()[0]["event"] == "got [redacted] from u1"
    assert "'id': 7" in lines.read()[1]["event"]


@pytest.mark.parametrize("pretty", [False, True])
def test_an_exception_shows_its_trace_without_secrets(pretty: bool) -> None:
    """A traceback keeps class and place; planted secrets are gone from its messages and those of its causes."""
    lines = Lines(pretty=pretty)
    try:
        try:
            raise KeyError(f"text='{PLANTED}'")
        except KeyError as error:
            raise RuntimeError(f"cannot reach redis://:{PLANTED}@cache/0") from error
    except RuntimeError:
        lines.logger.exception("stage failed")
    assert PLANTED not in lines.raw
    assert "RuntimeError" in lines.raw
    assert "KeyError" in lines.raw
    assert "test_logs.py" in lines.raw


def test_the_record_itself_is_left_as_it_was() -> None:
    """Other handlers of the same record still see its arguments."""
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s", ("kept",), None)
    RedactingFormatter(process="test", pretty=False).format(record)
    assert record.args == ("kept",)


_PROCESS = """
    import logging, sys, warnings
    import structlog
    from infra.settings import Settings
    from infra.telemetry.logs import configure_logs, own_celery_logs, turn_context

    own = structlog.stdlib.get_logger("workers.somewhere")
    configure_logs("agents", Settings(log_level="debug"))
    own_celery_logs()

    import uvicorn
    from celery import Celery
    uvicorn.Config(app="x:y", log_config=None)
    Celery("x", set_as_default=False).log.setup(loglevel="DEBUG", redirect_stdouts=False)

    with turn_context(turn_id="t1", conversation_id="c1", tenant_id="acme"):
        own.info("settled", state="answered", text="PLANTED", token="PLANTED")
        own.debug("detail of ours")
        try:
            raise ValueError("password=PLANTED")
        except ValueError:
            own.exception("own failure")
    for name in ("uvicorn.error", "aiokafka.conn", "celery.worker", "sqlalchemy.engine.Engine", "httpx2"):
        logging.getLogger(name).debug("never: %s", "PLANTED")
        logging.getLogger(name).error("from %s", name)
    logging.getLogger("sqlalchemy.engine.Engine").info("never: PLANTED")
    logging.getLogger("uvicorn.access").info("never: PLANTED")
    warnings.warn("old thing token=PLANTED")
"""


def test_one_process_one_format() -> None:
    """In a configured process, our modules and five libraries write the same JSON lines and no library debugs."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROCESS)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "PLANTED" not in done.stderr
    assert "never" not in done.stderr
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["process"] for line in lines} == {"agents"}
    first = lines[0]
    assert (first["event"], first["state"], first["turn_id"]) == ("settled", "answered", "t1")
    assert (first["text"], first["token"]) == ("[redacted]", "[redacted]")
    assert [line["logger"] for line in lines] == [
        *["workers.somewhere"] * 3,
        "uvicorn.error",
        "aiokafka.conn",
        "celery.worker",
        "sqlalchemy.engine.Engine",
        "httpx2",
        "py.warnings",
    ]
    assert "turn_id" not in lines[-1]
