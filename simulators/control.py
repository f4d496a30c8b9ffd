"""Which fault the next requests meet, and the routes that set it and read the log."""

import json
from dataclasses import replace
from typing import Literal, Self, TypeAlias

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulators.answers import Answer, tokenise
from simulators.journal import Journal
from simulators.misbehaviour import MISBEHAVIOURS, Misbehaviour, spoil
from simulators.pacing import Pacing
from simulators.prompts import Prompt
from simulators.shapes import Schema

FaultKind: TypeAlias = Literal["none", "status", "event", "cut", "close", "hang", "malformed", "slow"] | Misbehaviour
"""How the server fails, or how its model misbehaves (`misbehaviour.py`)."""

_ALLOWED = (
    "Allowed is a JSON object with fault (none, status, event, cut, close, hang, malformed, slow, "
    f"{', '.join(MISBEHAVIOURS)}) and, "
    "where wanted, status (400 to 599), after_tokens (0 to 100000), first_token_ms and inter_token_ms "
    "(0 to 600000), times (1 or more), tokens (1 to 100000), confidence (above 0, up to 1), "
    "says (what an obedient model writes) and before_headers (true or false, for hang and close)."
)
_SLOWER = 10


class Fault(BaseModel):
    """How the next answers go wrong, and how fast they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fault: FaultKind = "none"
    status: int | None = Field(default=None, ge=400, le=599)
    after_tokens: int | None = Field(default=None, ge=0, le=100_000)
    first_token_ms: float | None = Field(default=None, ge=0, le=600_000)
    inter_token_ms: float | None = Field(default=None, ge=0, le=600_000)
    times: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1, le=100_000)
    confidence: float | None = Field(default=None, gt=0, le=1)
    before_headers: bool = False
    says: str | None = Field(default=None, max_length=100_000)
    """What the model writes whatever it is asked, as an attacker would have it: all of its output if it begins with a
    brace, else its visible text."""

    @model_validator(mode="after")
    def _headers_are_held_back_only_by_hang_and_close(self) -> Self:
        if self.before_headers and self.fault not in {"hang", "close"}:
            raise ValueError("before_headers goes with hang and close only")
        return self

    @property
    def after(self) -> int:
        """Tokens that are sent before the fault strikes."""
        return self.after_tokens or 0

    @property
    def breaks_health(self) -> bool:
        """Whether a health check that generates a token would fail."""
        return self.fault in {"close", "hang"} or (
            self.fault in {"status", "event"} and (self.status is None or self.status == 424 or self.status >= 500)
        )

    def bend(self, answer: Answer, prompt: Prompt, schema: Schema | None) -> Answer:
        """The answer as this fault has the model give it."""
        answer = replace(answer, confidence=self.confidence)
        if self.says is not None:
            answer = answer.saying(self.says)
        if self.fault in MISBEHAVIOURS:
            return replace(answer, tokens=tuple(tokenise(spoil(self.fault, answer.text, prompt, schema))))
        return answer.malformed(self.after) if self.fault == "malformed" else answer

    def pacing(self, usual: Pacing) -> Pacing:
        """The speed under this fault: what it names, else the usual, ten times slower for a plain `slow`."""
        unnamed = self.first_token_ms is None and self.inter_token_ms is None
        factor = _SLOWER if self.fault == "slow" and unnamed else 1
        return Pacing(
            first_token_ms=usual.first_token_ms * factor if self.first_token_ms is None else self.first_token_ms,
            inter_token_ms=usual.inter_token_ms * factor if self.inter_token_ms is None else self.inter_token_ms,
        )


class InvalidControlError(ValueError):
    """The control body is not one the simulator knows. Its message says what is allowed."""


def parse_fault(body: bytes | str) -> Fault:
    """Read a control body; raises `InvalidControlError`."""
    try:
        return Fault.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidControlError(f"The control body was not taken: {place}: {first['msg']}. {_ALLOWED}") from None


class Control:
    """The fault in force and how many requests it still applies to."""

    def __init__(self) -> None:
        self._fault = Fault()
        self._left: int | None = None

    @property
    def fault(self) -> Fault:
        """The fault that the next request will meet."""
        return self._fault

    def set(self, fault: Fault) -> None:
        """Let `fault` apply from the next request on."""
        self._fault = fault
        self._left = fault.times

    def take(self) -> Fault:
        """The fault for one request that has just arrived; counts it."""
        fault = self._fault
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.set(Fault())
        return fault

    def state(self) -> dict[str, object]:
        """The fault in force as plain values; `times` is what is left of them."""
        left: dict[str, object] = {} if self._left is None else {"times": self._left}
        return {"fault": self._fault.fault} | self._fault.model_dump(exclude_defaults=True, exclude={"times"}) | left


CONTROL = web.AppKey("control", Control)
JOURNAL = web.AppKey("journal", Journal)


async def _show(request: web.Request) -> web.Response:
    return web.json_response(request.app[CONTROL].state())


async def _put(request: web.Request) -> web.Response:
    try:
        fault = parse_fault(await request.read())
    except InvalidControlError as error:
        return web.json_response({"error": str(error)}, status=422)
    request.app[CONTROL].set(fault)
    return web.json_response(request.app[CONTROL].state())


async def _requests(request: web.Request) -> web.Response:
    return _json(request.app[JOURNAL].records(request.query.get("turn")))


async def _counts(request: web.Request) -> web.Response:
    return _json(request.app[JOURNAL].counts())


async def _clear(request: web.Request) -> web.Response:
    request.app[JOURNAL].clear()
    return web.Response(status=204)


def _json(value: object) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


def control_routes() -> list[web.RouteDef]:
    """The routes under `/_control`."""
    return [
        web.get("/_control", _show),
        web.put("/_control", _put),
        web.get("/_control/requests", _requests),
        web.delete("/_control/requests", _clear),
        web.get("/_control/counts", _counts),
    ]
