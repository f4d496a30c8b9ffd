"""One JSON line for each event: our modules log through structlog, libraries through `logging`.

Every line passes the same processors and leaves redacted. Libraries never log at `debug`, whatever the
setting: several of them print whole requests there.
"""

import copy
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog
from opentelemetry import trace
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from infra.policy import load_policy
from infra.settings import Settings
from infra.telemetry.redaction import mask, put_in_force, redact, redact_item

_OURS: Final = ("schemas", "infra", "producers", "workers", "simulators", "web", "cli")

_WARNINGS_ONLY: Final = (
    "aiohttp.access",
    "aiokafka",
    "alembic",
    "asyncio",
    "celery.app.trace",
    "celery.task",
    "celery.worker.strategy",
    "fastapi",
    "httpcore2",
    "httpx2",
    "kombu",
    "openai",
    "sqlalchemy",
    "urllib3",
    "uvicorn.access",
    "uvicorn.error",
)
"""Libraries whose `info` lines carry requests, statements or nothing an operator acts on."""

_BRING_HANDLERS: Final = (
    "celery",
    "celery.redirected",
    "celery.task",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)


def configure_logs(process: str, settings: Settings) -> None:
    """Send every log line of this process to standard error, one format, redacted.

    Start uvicorn with `log_config=None`, and call `own_celery_logs` before a Celery worker starts.

    Raises:
        PolicyInvalid: the policy file, which says what is redacted, cannot be used.
    """
    put_in_force(load_policy(settings.policy).guardrails.redaction)
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(process=process, pretty=pretty))

    root = logging.getLogger()
    root.handlers = [handler]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(max(level, logging.INFO))

    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    for name in _BRING_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name in _WARNINGS_ONLY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))

    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_gathering(), ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def own_celery_logs() -> None:
    """Keep Celery from installing handlers of its own; `configure_logs` has done it."""
    from celery.signals import setup_logging  # here, so that only agent workers pay for importing Celery

    setup_logging.connect(_keep, weak=False)


def _keep(**_: object) -> None:
    """Receive the signal: that somebody does is what stops Celery."""


def turn_context(*, turn_id: str, conversation_id: str, tenant_id: str) -> AbstractContextManager[None]:
    """Name the turn on every line logged inside the returned context, by this task and those it starts."""
    return structlog.contextvars.bound_contextvars(
        turn_id=turn_id, conversation_id=conversation_id, tenant_id=tenant_id
    )


class RedactingFormatter(ProcessorFormatter):
    """Formats a record of `logging`, whether structlog made it or a library did."""

    def __init__(self, *, process: str, pretty: bool) -> None:
        render: Processor = (
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
            if pretty
            else structlog.processors.JSONRenderer(ensure_ascii=False)
        )
        super().__init__(
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _naming(process),
                _redacting,
                render,
            ],
            foreign_pre_chain=[*_gathering(), structlog.stdlib.ExtraAdder()],
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Arguments are redacted before the message is made of them: it has no keys."""
        if record.args:
            args = record.args
            record = copy.copy(record)
            record.args = _safe_args(args)
        return super().format(record)


def _gathering() -> list[Processor]:
    """Return the processors that run where the line is logged, so that they see its context."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]


def _add_trace(_: object, __: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def _naming(process: str) -> Callable[[object, str, EventDict], EventDict]:
    def add(_: object, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _redacting(_: object, __: str, event: EventDict) -> MutableMapping[str, Any]:
    return {key: mask(str(value)) if key == "event" else redact_item(key, value) for key, value in event.items()}


def _safe_args(args: tuple[object, ...] | Mapping[str, object]) -> tuple[object, ...] | Mapping[str, object]:
    if isinstance(args, Mapping):
        return {key: redact_item(key, value) for key, value in args.items()}
    return tuple(redact(value) for value in args)
