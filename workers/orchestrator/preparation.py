"""The head of a conversation: claim, route, queue, hint."""

from collections.abc import Collection

from opentelemetry import trace
from structlog import get_logger

from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import reach
from infra.postgres.inbox import Inbox, Plan, Prepared
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Abandoned
from infra.telemetry.logs import turn_context
from infra.telemetry.tracing import context_from, current_traceparent
from schemas.agents import lane_of
from schemas.ids import TurnId
from schemas.policy import Policy
from schemas.turns import TurnState
from workers.answers.abandoned import AbandonedSettler
from workers.orchestrator.router import RuleRouter

log = get_logger(__name__)
tracer = trace.get_tracer(__name__)


class Preparation:
    """Takes turns from recorded to queued. `served` names the backends that have a model server."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        router: RuleRouter,
        dispatcher: Dispatcher,
        policy: Policy,
        served: Collection[str],
        settler: AbandonedSettler,
    ) -> None:
        self._inbox = inbox
        self._router = router
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
                plan = await self.plan(turn)
                if await self._inbox.queue(turn, plan):
                    reach("after_route_before_hint")
                    await self.hint(turn, plan)
                else:
                    # A person took the conversation meanwhile. If it is not ours any more, this changes nothing.
                    await self.end_for_person(turn)
        except LedgerUnavailable as error:
            log.warning("preparation_waits_for_upkeep", turn_id=turn_id, error=str(error))

    async def end_for_person(self, turn: Prepared) -> None:
        """Show what a person wrote, or leave the visitor to the person who has the conversation."""
        ours = Abandoned(
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
            kept=not turn.said,
            told=turn.told,
        )
        await self._settler.persons(ours)

    async def plan(self, turn: Prepared) -> Plan:
        """Choose the agent and, from the policy, its models."""
        route = await self._router.route(turn)
        models = self._policy.agents[route.agent]
        # Without a fine-tuned model the frontier answers at once; the offline responder is the last resort only.
        unserved = self._policy.models[models.primary].backend not in self._served
        direct = unserved and self._policy.models[models.fallback].backend in self._served
        return Plan(
            agent=route.agent,
            primary=models.primary,
            fallback=models.fallback,
            direct=direct,
            why=route.why,
            policy=self._policy.version,
        )

    async def hint(self, turn: Prepared, plan: Plan) -> None:
        """Tell the lane. The turn is open to it already, so losing this costs seconds."""
        lane = lane_of(plan.agent)
        await self._dispatcher.send([Hint(turn.turn_id, lane, current_traceparent())])
        log.info("turn_routed", agent=plan.agent.value, why=plan.why)
