"""Letting a turn in: the same few steps for every channel.

A message is acknowledged once Kafka has it on all replicas, and not before. Nothing is stored that would have
to be taken back when Kafka refuses: a reserved key only says which message it stands for, and the same message
may come again under it.
"""

import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.crash_points import reach
from infra.kafka.producer import EventProducer, NotAccepted, TooLarge
from infra.postgres.idempotency import OtherMessage, Reserved, SameMessage, reserve
from infra.postgres.statements import LedgerUnavailable
from infra.telemetry.metrics import TURNS_ACCEPTED, TURNS_REFUSED, Door
from infra.telemetry.tracing import context_from, current_traceparent
from producers.rate_limit import RateLimit
from schemas.envelope import Envelope, now_rfc3339
from schemas.events import TYPE_TURN_SUBMITTED, TurnSubmitted
from schemas.ids import TurnId, new_event_id, new_key, turn_id_for
from schemas.names import TOPIC_TURNS, partition_key
from schemas.turns import HistoryMessage, TurnRequest

__all__ = ["Accepted", "Admission", "KeyReused", "NotAccepted", "NotText", "RateLimited", "RecentTurns"]

RECENT_TURNS: Final = 20_000
RECENT_SECONDS: Final = 120.0

_log = structlog.stdlib.get_logger()
_tracer = trace.get_tracer("fairlead.admission")


class KeyReused(Exception):
    """This key already stands for another message. Send that message again, or choose a new key for this one."""


class NotText(Exception):
    """The message holds half a character (a lone surrogate) or a number JSON has no word for. Send valid Unicode."""


class RateLimited(Exception):
    """Too many turns. Send this one again after `retry_after` seconds; it was not stored."""

    def __init__(self, sentence: str, *, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after: int = retry_after


@dataclass(frozen=True, slots=True)
class Accepted:
    """Kafka has the turn."""

    turn_id: TurnId
    conversation_id: str
    duplicate: bool
    """The same message came before, under the same key."""


@dataclass(frozen=True, slots=True)
class Known:
    """Where an accepted turn belongs."""

    tenant: str
    conversation_id: str
    at: float = field(default_factory=time.monotonic)


class RecentTurns:
    """Turns this process accepted lately: the ledger learns of them a moment later."""

    def __init__(self, *, most: int = RECENT_TURNS) -> None:
        self._most = most
        self._turns: OrderedDict[TurnId, Known] = OrderedDict()

    def remember(self, turn_id: TurnId, tenant: str, conversation: str) -> None:
        """Note an accepted turn."""
        self._turns[turn_id] = Known(tenant, conversation)
        self._turns.move_to_end(turn_id)
        if len(self._turns) > self._most:
            self._turns.popitem(last=False)

    def find(self, turn_id: TurnId) -> Known | None:
        """Return where a turn belongs that was accepted within the last two minutes."""
        known = self._turns.get(turn_id)
        if known is not None and time.monotonic() - known.at > RECENT_SECONDS:
            del self._turns[turn_id]
            return None
        return known


class Admission:
    """The one door through which turns reach Kafka."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        producer: EventProducer,
        recent: RecentTurns,
        tenant_limit: RateLimit,
        visitor_limit: RateLimit,
    ) -> None:
        self._engine = engine
        self._producer = producer
        self._recent = recent
        self._tenant_limit = tenant_limit
        self._visitor_limit = visitor_limit

    async def submit(
        self,
        tenant: str,
        conversation: str,
        request: TurnRequest,
        *,
        idempotency_key: str | None = None,
        history: Sequence[HistoryMessage] = (),
        traceparent: str | None = None,
        visitor: str | None = None,
        door: Door = "http",
    ) -> Accepted:
        """Accept one message as a turn of `conversation`, whose tenant is known to be who it says.

        Args:
            tenant: whose turn it is; authenticated by the caller.
            conversation: chosen by the channel.
            request: the validated message.
            idempotency_key: names the message within the tenant. Without one, every call is a new turn.
            history: earlier messages the channel brings along, oldest first.
            traceparent: trace the request belongs to, if it came with one.
            visitor: name of a bucket of the visitor's own, beside the tenant's.
            door: where the message came in, for the metrics.

        Raises:
            NotText: the message cannot be written down as Unicode.
            RateLimited: the tenant or the visitor sent too many.
            KeyReused: the key stands for another message.
            NotAccepted: Kafka did not confirm it.
        """
        try:
            digest = body_digest(conversation, request, history)
            self._within_limits(tenant, visitor)
            key = idempotency_key or new_key()
            turn_id = turn_id_for(tenant, key)
            duplicate = idempotency_key is not None and await self._is_repeated(
                tenant, key, digest, conversation, turn_id
            )
            event = _event(turn_id, tenant, conversation, request, history, digest)
            await self._publish(event, traceparent)
            reach("after_produce_before_202")
        except (NotText, RateLimited, KeyReused, NotAccepted) as error:
            TURNS_REFUSED.labels(door, _REASONS[type(error)]).inc()
            raise
        self._recent.remember(turn_id, tenant, conversation)
        TURNS_ACCEPTED.labels(door).inc()
        return Accepted(turn_id, conversation, duplicate)

    def _within_limits(self, tenant: str, visitor: str | None) -> None:
        wait = self._visitor_limit.take(f"{tenant}\x1f{visitor}") if visitor is not None else 0.0
        wait = wait or self._tenant_limit.take(tenant)
        if wait:
            raise RateLimited(
                "Too many turns in the last minute; this one was not stored. Send it again later.",
                retry_after=math.ceil(wait),
            )

    async def _is_repeated(self, tenant: str, key: str, digest: str, conversation: str, turn_id: TurnId) -> bool:
        try:
            reservation = await reserve(
                self._engine,
                tenant=tenant,
                key=key,
                body_sha256=digest,
                conversation=conversation,
                turn_id=turn_id,
            )
        except LedgerUnavailable:
            # Accepted all the same: the turn's id follows from its key, so the same message is the same turn, and
            # the orchestrator compares the digests before it records anything.
            _log.warning("key_not_reserved", turn_id=turn_id)
            return False
        match reservation:
            case Reserved():
                return False
            case SameMessage():
                # Produced again below: what is known is only that it was tried. The orchestrator counts it once.
                return True
            case OtherMessage():
                raise KeyReused("This idempotency key already stands for another message.")
            case _:
                assert_never(reservation)

    async def _publish(self, event: TurnSubmitted, traceparent: str | None) -> None:
        here = trace.get_current_span().get_span_context().is_valid
        parent = None if here else context_from(traceparent)
        with _tracer.start_as_current_span(f"send {TOPIC_TURNS}", context=parent, kind=SpanKind.PRODUCER) as span:
            span.set_attribute("messaging.system", "kafka")
            span.set_attribute("messaging.destination.name", TOPIC_TURNS)
            span.set_attribute("fairlead.turn_id", event.turn_id)
            key = partition_key(event.tenant_id, event.conversation_id)
            envelope = Envelope(
                id=new_event_id(),
                type=TYPE_TURN_SUBMITTED,
                source=f"/fairlead/ingress/{event.channel}",
                subject=event.conversation_id,
                tenant=event.tenant_id,
                partition_key=key,
                time=now_rfc3339(),
                traceparent=current_traceparent(),
            )
            value = event.model_dump_json().encode()
            await self._producer.send(TOPIC_TURNS, key=key.encode(), value=value, headers=envelope.headers())


_REASONS: Final[dict[type[Exception], str]] = {
    NotText: "not_text",
    RateLimited: "rate_limited",
    KeyReused: "key_reused",
    NotAccepted: "kafka_unavailable",
    TooLarge: "too_large",
}


def body_digest(conversation: str, request: TurnRequest, history: Sequence[HistoryMessage] = ()) -> str:
    """Return the SHA-256 of a message, the same however its JSON was written.

    Raises:
        NotText: it has no UTF-8 form.
    """
    body = {
        "conversation": conversation,
        "text": request.text,
        "channel": request.channel,
        "metadata": request.metadata,
        "history": [message.model_dump() for message in history],
    }
    try:
        canonical = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise NotText("The message is not valid Unicode text or holds a number JSON has no word for.") from error


def _event(
    turn_id: TurnId,
    tenant: str,
    conversation: str,
    request: TurnRequest,
    history: Sequence[HistoryMessage],
    digest: str,
) -> TurnSubmitted:
    return TurnSubmitted(
        turn_id=turn_id,
        tenant_id=tenant,
        conversation_id=conversation,
        channel=request.channel,
        text=request.text,
        metadata=request.metadata,
        history=tuple(history),
        body_sha256=digest,
    )
