"""Behaviour as data: which agent uses which model, how long anything may take. Read from versioned YAML."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.agents import ANSWERING, Agent
from schemas.answer_policy import AnswerPolicy
from schemas.asset_policy import AssetPolicy
from schemas.completions import ModelClocks
from schemas.gate_policy import GatePolicy
from schemas.guardrail_policy import GuardrailPolicy
from schemas.knowledge_policy import KnowledgePolicy
from schemas.routing_policy import RoutingPolicy
from schemas.turns import TurnState


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPolicy(_Frozen):
    """One model: which configured backend serves it and under which name."""

    backend: Literal["discovery", "frontier", "offline"]
    model: str
    adapter: str | None = None
    """LoRA adapter. Checked here because TGI runs the base model for a name it does not know."""
    first_token: float = Field(gt=0)
    """Seconds to the first token."""


class AgentPolicy(_Frozen):
    """How one agent answers."""

    primary: str
    fallback: str
    input_tokens: int = Field(ge=256)
    history_turns: int = Field(default=10, ge=0, le=50)
    max_tokens: int = Field(ge=16)
    temperature: float = Field(default=0.7, gt=0, le=2)


class Deadlines(_Frozen):
    """Seconds. Decided on the database's clock, except those inside one model call."""

    connect: float = Field(gt=0)
    between_tokens: float = Field(gt=0)
    stream: float = Field(gt=0)
    queue: float = Field(gt=0)
    """From dispatch to claim."""
    turn: float = Field(gt=0)
    """From the moment a turn is first of its conversation to its end."""
    waiting: float = Field(gt=0)
    """From acceptance to being first of its conversation."""
    lease: float = Field(gt=0)

    @model_validator(mode="after")
    def _nested(self) -> Self:
        if not self.queue < self.turn <= self.waiting:
            raise ValueError("deadlines must nest: queue < turn <= waiting")
        return self


class BreakerPolicy(_Frozen):
    """When a lane skips a primary that keeps failing, and when it tries it again. Times in seconds."""

    window: float = Field(default=30, gt=0)
    """How far back failures are counted, by each worker process for itself."""
    calls: int = Field(default=10, ge=1)
    """Calls in the window below which nothing is concluded."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of failed calls that opens the lane."""
    open: float = Field(default=30, gt=0)
    """From opening, or from a failed probe, to the next probe."""
    probe: float = Field(default=75, gt=0)
    """After that a probe that has not reported counts as lost. Longer than a model call may take."""


class RescueBudget(_Frozen):
    """How many turns may be sent to the frontier because their own lane was late: a token bucket, one token a turn."""

    per_minute: float = Field(default=300, gt=0)
    burst: int = Field(default=500, ge=1)


class RetentionDays(_Frozen):
    """Days after which what has ended is forgotten."""

    kafka: float = Field(default=14, gt=0)
    """Not ours to forget: after so long Kafka has dropped a record of `fairlead.turns`: its retention and a segment."""
    outbox: float = Field(default=7, gt=0)
    """From publication."""
    conversations: float = Field(default=90, gt=0)
    """From the end of the last turn."""
    keys: float = Field(default=90, gt=0)
    """Of keys whose message never became a turn; the others go with their turn."""
    dead_letters: float = Field(default=90, gt=0)
    """From the day they were done with; also of replay jobs."""

    @model_validator(mode="after")
    def _nested(self) -> Self:
        if not self.kafka <= self.conversations <= self.keys:
            raise ValueError(
                "retention must nest: kafka <= conversations <= keys, or a record read again is answered again"
            )
        if self.dead_letters < self.kafka:
            raise ValueError("retention must nest: kafka <= dead_letters, or a record read again is buried again")
        return self


class Policy(_Frozen):
    """The whole policy of an installation."""

    version: int = Field(ge=1)
    models: dict[str, ModelPolicy]
    agents: dict[Agent, AgentPolicy]
    default_agent: Agent = Agent.DISCOVERY
    routing: RoutingPolicy = RoutingPolicy()
    deadlines: Deadlines
    breaker: BreakerPolicy = BreakerPolicy()
    rescues: RescueBudget = RescueBudget()
    retention: RetentionDays = RetentionDays()
    assets: AssetPolicy = AssetPolicy()
    knowledge: KnowledgePolicy = KnowledgePolicy()
    answers: AnswerPolicy = AnswerPolicy()
    gate: GatePolicy = GatePolicy()
    bounded_reply: str
    """Shown when no model could answer. HTML of the allow-list."""
    without_answer: Literal["bounded", "human", "offline"] = "bounded"
    """What a visitor whom no model could answer is given: the bounded reply, a human, or what rules and retrieval
    can say without a model. The last ends `bounded` too."""
    handoff_reply: str = "<p>I could not answer that just now. A colleague of mine will get back to you here.</p>"
    """Shown where a human takes over. HTML of the allow-list."""
    guardrails: GuardrailPolicy = GuardrailPolicy()
    coalesce: bool = False
    """Answer messages that wait for the same earlier turn together, with one answer."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [agent for agent in ANSWERING if agent not in self.agents]
        if missing:
            raise ValueError(f"policy names no models for {', '.join(missing)}; add them under 'agents'")
        for agent, chosen in self.agents.items():
            for name in (chosen.primary, chosen.fallback):
                if name not in self.models:
                    raise ValueError(f"agent {agent} uses model '{name}', which 'models' does not define")
        if self.routing.model is not None and self.routing.model not in self.models:
            raise ValueError(f"routing uses model '{self.routing.model}', which 'models' does not define")
        return self

    def unanswered(self, *, parked: bool = False) -> tuple[TurnState, str]:
        """Return how a turn ends that no model could answer, and what its visitor is shown.

        Args:
            parked: whether its dead letter could not be routed any more and waits for an operator.
        """
        if self.without_answer == "human":
            return TurnState.HANDED_OFF, self.handoff_reply
        return TurnState.PARKED if parked else TurnState.BOUNDED, self.bounded_reply

    def clocks(self, model: str) -> ModelClocks:
        """Return the clocks of one call to `model`."""
        d = self.deadlines
        return ModelClocks(d.connect, self.models[model].first_token, d.between_tokens, d.stream)

    def served_by(self, backend: str) -> list[str]:
        """Return the names under which the models of a backend are known at its server."""
        return [model.model for model in self.models.values() if model.backend == backend]
