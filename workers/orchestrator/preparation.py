"""The head of a conversation: claim, look (route beside retrieve), confirm, queue, hint."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from opentelemetry import trace
from structlog import get_logger

from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import reach
from infra.postgres.inbox import Inbox, Plan, Prepared
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Abandoned
from infra.telemetry import metrics
from infra.telemetry.logs import turn_context
from infra.telemetry.tracing import context_from, current_traceparent
from schemas.agents import Agent, lane_of
from schemas.briefs import Brief
from schemas.ids import TurnId
from schemas.knowledge import Retrieve, Retrieved
from schemas.policy import Policy
from schemas.turns import TurnState
from workers.agents.discovery.learning import facts_of
from workers.agents.phrases import phrases
from workers.answers.abandoned import AbandonedSettler
from workers.orchestrator.confirmation import Case, confirm
from workers.orchestrator.finding import Finding
from workers.orchestrator.language import Languages
from workers.orchestrator.risks import judged_by
from workers.orchestrator.routing import Routing

log = get_logger(__name__)
tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of a turn before it is confirmed."""

    finding: Finding
    retrieved: Retrieved
    language: str


class Preparation:
    """Takes turns from recorded to queued. `served` names the backends that have a model server."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        routing: Routing,
        retrieve: Retrieve,
        languages: Languages,
        dispatcher: Dispatcher,
        policy: Policy,
        served: Collection[str],
        settler: AbandonedSettler,
    ) -> None:
        self._inbox = inbox
        self._routing = routing
        self._retrieve = retrieve
        self._languages = languages
        self._dispatcher = dispatcher
        self._policy = policy
        self._served = served
        self._settler = settler

    async def run(self, turn_id: TurnId) -> None:
        """Prepare the turn if it is the head of its conversation. Otherwise its predecessor's end wakes it."""
        try:
            turn = await self._inbox.prepare(turn_id)
            if turn is None:
                return
            reach("after_preparing")
            with (
                turn_context(turn_id=turn.turn_id, conversation_id=turn.conversation_id, tenant_id=turn.tenant),
                tracer.start_as_current_span("prepare turn", context=context_from(turn.traceparent)),
            ):
                if turn.said or turn.kept:
                    await self.end_for_person(turn)
                    return
                if await self.refuse(turn):
                    return
                plan = await self.plan(turn)
                if await self._inbox.queue(turn, plan):
                    reach("after_route_before_hint")
                    await self.hint(turn, plan)
                else:
                    # A person took the conversation meanwhile. If it is not ours any more, this changes nothing.
                    await self.end_for_person(turn)
        except LedgerUnavailable as error:
            log.warning("preparation_waits_for_upkeep", turn_id=turn_id, error=str(error))

    async def refuse(self, turn: Prepared) -> bool:
        """End a turn that the policy wants no model to be asked about. False: it is none, or a person has it now."""
        policy = self._policy.guardrails.abuse
        judged = judged_by(turn, policy)
        if judged.risk not in policy.refuse:
            return False
        language = await self._languages.of(turn, within=self._policy.routing.deadline / 2)
        reply = phrases(language).refused
        return await self._settler.refused(_ours(turn), reply=reply, reason=judged.risk, note=judged.reason)

    async def end_for_person(self, turn: Prepared) -> None:
        """Show what a person wrote, or leave the visitor to the person who has the conversation."""
        await self._settler.persons(replace(_ours(turn), kept=not turn.said))

    async def look(self, turn: Prepared) -> Looked:
        """Route and retrieve beside each other, within one deadline; what is not known by then is not pretended."""
        now = asyncio.get_running_loop().time
        ends = now() + self._policy.routing.deadline
        language = await self._languages.of(turn, within=self._policy.routing.deadline / 2)
        retrieved = asyncio.create_task(self._retrieved(turn, language, ends), name="retrieve")
        try:
            finding = await self._routing.find(turn, within=max(0.05, ends - now()))
            return Looked(finding, await retrieved, finding.language or language)
        finally:
            retrieved.cancel()

    async def _retrieved(self, turn: Prepared, language: str, ends: float) -> Retrieved:
        try:
            async with asyncio.timeout_at(ends):
                return await self._retrieve(turn.tenant, turn.text, language=language)
        except TimeoutError:
            return Retrieved(state="late")
        except Exception:
            # A turn is worth more than what might have been found for it.
            log.exception("retrieval_failed")
            return Retrieved(state="failed")

    async def plan(self, turn: Prepared) -> Plan:
        """Look, confirm who answers, and choose, from the policy, the models."""
        return self._confirmed(turn, await self.look(turn))

    def _confirmed(self, turn: Prepared, looked: Looked) -> Plan:
        finding = looked.finding
        first = not any(past.shown_html for past in turn.past) and not turn.brought
        case = Case(finding, looked.retrieved, self._policy.routing, self._policy.default_agent, first)
        agent, why = confirm(case)
        models = self._policy.agents[agent]
        metrics.ROUTES.labels(agent.value, finding.router.partition("-")[0]).inc()
        return Plan(
            agent=agent,
            primary=models.primary,
            fallback=models.fallback,
            direct=self._direct(agent, finding),
            why=why,
            policy=self._policy.version,
            brief=Brief(
                language=looked.language,
                phase=finding.phase,
                intent=finding.intent,
                signals=finding.signals,
                repeats=finding.repeats,
                risk=finding.risk,
                confidence=finding.confidence,
                router=finding.router,
                facts=facts_of(turn, looked.language),
                retrieved=looked.retrieved,
            ),
        )

    def _direct(self, agent: Agent, finding: Finding) -> bool:
        """Whether the primary is skipped: nothing serves it, or it may not answer such a message."""
        models = self._policy.agents[agent]
        primary, fallback = (self._policy.models[name].backend for name in (models.primary, models.fallback))
        if finding.risk.frontier_only and primary == "discovery":
            return True
        # Without a fine-tuned model the frontier answers at once; the offline responder is the last resort only.
        return primary not in self._served and fallback in self._served

    async def hint(self, turn: Prepared, plan: Plan) -> None:
        """Tell the lane. The turn is open to it already, so losing this costs seconds."""
        lane = lane_of(plan.agent)
        await self._dispatcher.send([Hint(turn.turn_id, lane, current_traceparent())])
        # Without the reason, which may be a model's: nobody knows what it says of the visitor.
        log.info("turn_routed", agent=plan.agent.value, router=plan.brief.router, risk=plan.brief.risk.value)


def _ours(turn: Prepared) -> Abandoned:
    return Abandoned(
        turn_id=turn.turn_id,
        tenant=turn.tenant,
        conversation_id=turn.conversation_id,
        seq=turn.seq,
        channel=turn.channel,
        agent=None,
        epoch=turn.epoch,
        state=TurnState.PREPARING,
        content=turn.content,
        cuts=turn.cuts,
        routed=turn.routed,
        reason=None,
        created=turn.created,
        ordinal=None,
        traceparent=current_traceparent(),
        said=turn.said,
        kept=turn.kept,
        told=turn.told,
    )
