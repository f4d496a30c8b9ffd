"""The middle of the system: one turn from claim to settlement."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from opentelemetry import trace
from structlog import get_logger

from infra.crash_points import reach
from infra.postgres.claims import Claim, Claims
from infra.postgres.statements import LedgerUnavailable
from infra.redis.frame_log import FrameLog, FramesUnavailable, Stream, Verdict
from infra.telemetry import metrics
from infra.telemetry.logs import turn_context
from infra.telemetry.tracing import context_from, current_traceparent
from schemas.agents import ANSWERING, Lane, lane_of
from schemas.completions import CompletionRequest, ProviderError, Unavailable
from schemas.dead_letters import reason_of_failure, reason_of_fallback
from schemas.frames import SEQ_ROUTED, Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from schemas.knowledge import Retrieve
from schemas.outcomes import Answered, AttemptEnding, Bounded, Ending, FailedUnseen, LeaseLost, Truncated
from schemas.policy import Policy
from workers.agents.lookup import look_up
from workers.agents.material import material_of
from workers.agents.prompt import Prompt, build_prompt
from workers.agents.rules import rules_of
from workers.agents.shape import answer_schema
from workers.answers.attempt import run_attempt
from workers.answers.gate import ConfidenceGate
from workers.answers.publisher import Publisher
from workers.answers.settle import Settler
from workers.answers.terms import Terms
from workers.answers.writer import FrameWriter
from workers.assets.attach import Attachments
from workers.breaker import Breakers
from workers.guardrails.links import link_rule
from workers.live_turns import LiveTurns
from workers.providers.backends import Backends

log = get_logger(__name__)
tracer = trace.get_tracer(__name__)

_NO_BUDGET: Final = 10_000_000
"""Tokens: no prompt has so many."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Carries turns. One per worker process; `run` is called once for each hint."""

    policy: Policy
    claims: Claims
    frames: FrameLog
    publisher: Publisher
    settler: Settler
    attachments: Attachments
    backends: Backends
    breakers: Breakers
    live: LiveTurns
    retrieve: Retrieve | None = None
    """Searches the knowledge base for one part of a question."""
    gates: Mapping[str, ConfidenceGate] = field(default_factory=dict[str, ConfidenceGate])
    """Judges of decisions, by the policy's name of the model they are of."""

    async def run(self, turn_id: TurnId, lane: Lane) -> None:
        """Carry one turn from claim to settlement. A hint for a turn that is not there to be taken is nothing."""
        claim = await self.claim(turn_id, lane)
        if claim is None:
            return
        with (
            turn_context(turn_id=claim.turn_id, conversation_id=claim.conversation_id, tenant_id=claim.tenant),
            tracer.start_as_current_span(f"answer {claim.agent}", context=context_from(claim.traceparent)),
        ):
            writer = await self.arm(claim)
            reach("after_arm")
            with self.live.carrying(claim, writer):
                claim = await look_up(claim, self.retrieve, self.policy.answers)
                prompt = await self.prompt(claim)
                ending = await self.generate(claim, prompt, writer)
                ending = await self.attachments.appended(claim, writer, ending)
                await self.settle(claim, prompt, writer, ending)

    async def claim(self, turn_id: TurnId, lane: Lane) -> Claim | None:
        """Take the turn; its attempt is in the ledger from here on."""
        try:
            if lane is Lane.FRONTIER_FALLBACK:
                return await self.rescue(turn_id)
            skip = self.unusable(lane) or await self.breakers.skip(turn_id, lane)
            claim = await self.claims.claim(turn_id, skip=skip)
        except LedgerUnavailable as error:
            self.breakers.not_asked(turn_id, lane)
            log.warning("claim_failed", turn_id=turn_id, error=str(error))
            return None
        if claim is None or claim.ordinal != 1:
            self.breakers.not_asked(turn_id, lane)
        if claim is not None:
            reach("after_claim")
            metrics.QUEUE_WAIT.labels(lane).observe(max(0.0, claim.waited))
        if claim is not None and skip is not None:
            metrics.PRIMARIES_SKIPPED.labels(lane, skip).inc()
        return claim

    async def rescue(self, turn_id: TurnId) -> Claim | None:
        """Take a turn that lost its lane or its owner; its one fallback is in the ledger from here on."""
        claim = await self.claims.rescue(turn_id)
        if claim is not None:
            reach("after_rescue_claim")
        return claim

    def unusable(self, lane: Lane) -> str | None:
        """Say why no turn of this lane can ask its primary model in this process; None if it can."""
        agent = next(agent for agent in ANSWERING if lane_of(agent) is lane)
        return self.backends.skipped(self.policy.agents[agent].primary)

    async def arm(self, claim: Claim) -> FrameWriter:
        """Make this epoch the only one that may show frames, before any model is asked."""
        stream = Stream(claim.turn_id, claim.tenant, claim.conversation_id, claim.epoch)
        info = TurnStreamInfo(claim.turn_id, claim.conversation_id, claim.created)
        writer = FrameWriter(stream=stream, info=info)
        try:
            if await self.frames.arm(stream, render(info, SEQ_ROUTED, Phase.ROUTED)) is Verdict.FENCED:
                writer.lost.set()
        except FramesUnavailable:
            # The answer will appear at its end, from the ledger.
            log.warning("answering_silently")
            writer.silent = True
        return writer

    async def prompt(self, claim: Claim) -> Prompt:
        """Build the messages within the agent's budget; tokens are counted only where an estimate would cut."""
        agent = self.policy.agents[claim.agent]
        prompt = build_prompt(claim, input_tokens=agent.input_tokens, history_turns=agent.history_turns)
        counts = self.backends.counts(claim.model) if prompt.turns_cut else None
        if counts is None:
            return prompt
        whole = build_prompt(claim, input_tokens=_NO_BUDGET, history_turns=agent.history_turns)
        await counts.learn(message.content for message in whole.messages)
        return build_prompt(
            claim, input_tokens=agent.input_tokens, history_turns=agent.history_turns, count=counts.count
        )

    async def generate(self, claim: Claim, prompt: Prompt, writer: FrameWriter) -> Ending:
        """One request, and one fallback if the first failed before anything was visible."""
        ending = await self.attempt(claim, prompt, writer, claim.ordinal, claim.model)
        if claim.ordinal == 1:
            self.breakers.record(claim.turn_id, lane_of(claim.agent), ending)
        first: ProviderError | None = None
        if isinstance(ending, FailedUnseen) and claim.ordinal == 1:
            first = ending.error
            if not await self.fall_back(claim, first):
                return LeaseLost()
            reach("after_fb_latch")
            ending = await self.attempt(claim, prompt, writer, 2, claim.fallback)
        match ending:
            case FailedUnseen(error=error):
                log.warning("no_model_answered", error=error.code, why=str(error))
                return Bounded(reason=reason_of_failure(error, first), error=error, ordinal=2)
            case Truncated(error=error):
                log.warning("answer_broke_off", error=error.code, why=str(error))
                return ending
            case Answered() | LeaseLost():
                return ending
            case _:
                assert_never(ending)

    async def fall_back(self, claim: Claim, error: ProviderError) -> bool:
        """Reserve the turn's one fallback. False: the turn is no longer ours."""
        metrics.FALLBACKS.labels(error.code).inc()
        log.warning("falling_back", error=error.code, why=str(error))
        letter = reason_of_fallback(error)
        latched = await self.claims.latch_fallback(claim, error.code, letter)
        if latched and letter is not None:
            metrics.DEAD_LETTERS.labels(letter.value).inc()
        return latched

    async def attempt(
        self, claim: Claim, prompt: Prompt, writer: FrameWriter, ordinal: int, model: str
    ) -> AttemptEnding:
        """Make one model call and show what comes."""
        if writer.lost.is_set():
            return LeaseLost()
        if writer.silent:
            writer.forget()
        provider, policy = self.backends.for_model(model)
        agent = self.policy.agents[claim.agent]
        request = CompletionRequest(
            turn_id=claim.turn_id,
            ordinal=ordinal,
            model=policy.model,
            adapter=policy.adapter,
            messages=prompt.messages,
            json_schema=answer_schema(claim),
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            clocks=self.policy.clocks(model),
            traceparent=current_traceparent(),
            material=material_of(claim, prompt.passages),
        )
        terms = Terms(claim, passages=prompt.passages, passages_cut=prompt.passages_cut, policy=self.policy.answers)

        async def show(html: str) -> bool:
            return await self.show(claim, writer, ordinal, html)

        source = "offline" if provider.name == "offline" else "primary" if ordinal == 1 else "fallback"
        if ordinal == 1 and self.breakers.away(lane_of(claim.agent)):
            ending = FailedUnseen(Unavailable("taken away by a drill"))
        else:
            links = link_rule(self.policy.guardrails.links, claim.brief.retrieved.passages)
            promises = self.policy.guardrails.commitments
            rules = rules_of(claim, self.policy.gate, promises, ordinal=ordinal, offline=source == "offline")
            gate = self.gates.get(model) if ordinal == 1 else None
            ending = await run_attempt(
                provider, request, writer, show, source, links=links, terms=terms, rules=rules, gate=gate
            )
        metrics.MODEL_CALLS.labels(model, str(ordinal), _outcome(ending)).inc()
        return ending

    async def show(self, claim: Claim, writer: FrameWriter, ordinal: int, html: str) -> bool:
        """Show safe HTML. The first of it passes the commit point: after that, this attempt's text stays."""
        if writer.lost.is_set():
            return False
        first = not writer.started
        reach("before_latch" if first else "mid_stream")
        if first and not writer.silent and not await self.claims.latch_visible(claim, ordinal):
            return False
        if first:
            reach("after_latch_before_chunk1")
            metrics.FIRST_FRAME.labels(claim.agent).observe(claim.age + time.monotonic() - writer.opened)
        writer.write(html)
        self.publisher.submit(writer, urgent=first)
        return True

    async def settle(self, claim: Claim, prompt: Prompt, writer: FrameWriter, ending: Ending) -> None:
        """End the turn in the ledger, then show its terminal frame and wake the next turn."""
        match ending:
            case LeaseLost():
                log.warning("lease_lost")
            case Answered() | Truncated() | Bounded():
                await self.publisher.drain(writer)
                reach("before_final")
                await self.settler.settle(claim, prompt.turns_cut, writer, ending)
            case _:
                assert_never(ending)


def _outcome(ending: AttemptEnding) -> str:
    match ending:
        case Answered():
            return "answered"
        case Truncated(error=error) | FailedUnseen(error=error):
            return error.code
        case LeaseLost():
            return "lease_lost"
        case _:
            assert_never(ending)


async def run_safely(executor: Executor, turn_id: TurnId, lane: Lane) -> None:
    """Run a turn; what nobody foresaw is logged, and the turn's lease then hands it to a rescuer."""
    try:
        await executor.run(turn_id, lane)
    except asyncio.CancelledError:
        raise
    except LedgerUnavailable as error:
        log.warning("turn_left_to_its_lease", turn_id=turn_id, error=str(error))
    except Exception:
        log.exception("turn_failed_unexpectedly", turn_id=turn_id)
