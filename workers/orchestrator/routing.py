"""Who decides, and who decides in their place: frontier or cascade, then the classifier, then the rules."""

import time
from typing import Final

from opentelemetry import trace
from structlog import get_logger

from infra.postgres.inbox import Prepared
from infra.settings import Settings
from infra.telemetry import metrics
from schemas.policy import Policy
from schemas.routing_policy import RoutingPolicy
from workers.orchestrator.classifier import ClassifierDamaged, ClassifierRouter
from workers.orchestrator.finding import Finding, NoFinding
from workers.orchestrator.frontier import FrontierRouter
from workers.orchestrator.rules import RuleRouter
from workers.orchestrator.skip import Skip
from workers.providers.structured import Structured

log = get_logger(__name__)

NOT_SERVED: Final = "not_served"
SKIPPED: Final = "skipped"
NOT_LOADED: Final = "not_loaded"


class Routing:
    """The routers of one process, asked in their order. Never fails: behind all others are the rules."""

    def __init__(
        self,
        policy: RoutingPolicy,
        *,
        rules: RuleRouter,
        classifier: ClassifierRouter | None = None,
        frontier: FrontierRouter | None = None,
    ) -> None:
        """Ask those given; without a classifier the rules answer in its place."""
        self._policy = policy
        self._rules = rules
        self._classifier = classifier
        self._frontier = frontier
        self._skip = Skip(failures=policy.failures, seconds=policy.pause)

    async def find(self, turn: Prepared, *, within: float) -> Finding:
        """Return what the first router found that could say in time; each that could not is counted."""
        started = time.perf_counter()
        match self._policy.router:
            case "frontier":
                found = await self._ask_frontier(turn, within) or self._without_frontier(turn)
            case "cascade":
                found = await self._cascade(turn, within)
            case "classifier":
                found = self._without_frontier(turn)
            case "rules":
                found = self._rules.judge(turn)
        kind = found.router.partition("-")[0]
        metrics.ROUTING_DURATION.labels(kind).observe(time.perf_counter() - started)
        trace.get_current_span().set_attribute("fairlead.router", found.router)
        return found

    async def _cascade(self, turn: Prepared, within: float) -> Finding:
        """Take the classifier's word where it is sure, or where the frontier cannot say."""
        found = self._without_frontier(turn)
        sure = found.router.startswith("classifier") and found.confidence >= self._policy.sure
        return found if sure else await self._ask_frontier(turn, within) or found

    async def _ask_frontier(self, turn: Prepared, within: float) -> Finding | None:
        """Return the frontier's finding; None where nothing serves it, it is skipped, or it failed."""
        if self._frontier is None:
            metrics.ROUTING_FALLBACKS.labels(NOT_SERVED).inc()
            return None
        if not self._skip.may_ask():
            metrics.ROUTING_FALLBACKS.labels(SKIPPED).inc()
            return None
        try:
            found = await self._frontier.find(turn, within=within)
        except NoFinding as error:
            if self._skip.failed():
                log.warning("frontier_router_skipped", reason=error.reason, seconds=self._policy.pause)
            metrics.ROUTING_FALLBACKS.labels(error.reason).inc()
            return None
        except BaseException:
            self._skip.not_asked()
            raise
        self._skip.answered()
        return found

    def _without_frontier(self, turn: Prepared) -> Finding:
        rules = self._rules.judge(turn)
        if self._classifier is None:
            metrics.ROUTING_FALLBACKS.labels(NOT_LOADED).inc()
            return rules
        try:
            return self._classifier.judge(turn, rules)
        except NoFinding as error:
            metrics.ROUTING_FALLBACKS.labels(error.reason).inc()
            return rules


def routing_of(policy: Policy, settings: Settings) -> tuple[Routing, Structured | None]:
    """Return the routers that the policy wants, and the client to close at the end, if one was needed."""
    rules = RuleRouter(policy.default_agent, abuse=policy.guardrails.abuse)
    wanted = policy.routing.router
    classifier = None if wanted == "rules" else _classifier(rules)
    client = None
    frontier = None
    if wanted in ("frontier", "cascade") and "frontier" in settings.served_backends:
        client = Structured(settings)
        frontier = FrontierRouter(
            rules,
            client,
            model=routing_model(policy),
            connect=policy.deadlines.connect,
        )
    return Routing(policy.routing, rules=rules, classifier=classifier, frontier=frontier), client


def routing_model(policy: Policy) -> str:
    """Return the name, at its server, of the model that routes."""
    if policy.routing.model is not None:
        return policy.models[policy.routing.model].model
    return next((model.model for model in policy.models.values() if model.backend == "frontier"), "")


def _classifier(rules: RuleRouter) -> ClassifierRouter | None:
    try:
        return ClassifierRouter(rules)
    except (ClassifierDamaged, OSError, ValueError) as error:
        log.error("classifier_not_loaded", error=str(error))
        return None
