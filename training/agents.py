"""What routers are worth: each alone, and with the confirmation behind it, which is what serves.

Measured on the utterances held out and, where a folder has them, on public sets of intents whose labels name an agent.
"""

import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.policy import load_policy
from infra.settings import Settings
from schemas.agents import ANSWERING, Agent
from schemas.knowledge import Retrieved
from schemas.policy import Policy
from schemas.routing_policy import RouterName
from simulators.testing import running
from training.router.utterances import Utterance
from training.rows import read
from workers.orchestrator.confirmation import Case, confirm
from workers.orchestrator.routing import Routing, routing_of

ROUTERS: Final[tuple[RouterName, ...]] = ("rules", "classifier", "cascade", "frontier")

_TROUBLE: Final = re.compile(
    r"declined|failed|not_working|pending|wrong|not_recogni|charged_twice|lost_or_stolen|forgotten|blocked|"
    r"not_(?:updated|received|showing)|swallowed|compromised|revert|unable|refund|^edit_|^change_|terminate|cancel|activate"
)
"""Labels of banking77 that somebody has who is a customer and in trouble, or wants something of the account changed."""

_CLINC: Final = {
    Agent.DISCOVERY: ("greeting", "what_can_i_ask_you", "who_do_you_work_for", "yes", "no", "maybe"),
    Agent.ADAPTIVE_RESPONSE: ("repeat",),
    Agent.SUPPORT: (
        "account_blocked", "card_declined", "damaged_card", "report_lost_card", "report_fraud", "reset_settings",
        "pin_change", "sync_device", "change_user_name", "change_language",
    ),
}  # fmt: skip
"""Labels of CLINC150 by the agent they are for. Nothing in it asks for material or for how something is built."""

_REPLIES: Final = ("yes", "no", "maybe")

_MOST: Final = 20
"""Texts of a label, so that none outweighs the others."""

Pair = tuple[str, str]


async def routers(rows: Sequence[Utterance], names: Sequence[RouterName] = ROUTERS) -> dict[str, dict[str, float]]:
    """Return accuracy, macro-F1 and latency of each router on `rows`, alone and confirmed.

    The frontier is a simulator on loopback that knows words: its figures show the way there, not what a model knows.
    """
    policy = load_policy()
    told: dict[str, dict[str, float]] = {}
    async with running("openai", models=policy.served_by("frontier")) as frontier:
        settings = Settings(frontier_base_url=frontier.base_url, discovery_base_url=None)
        for name in names:
            chosen = policy.model_copy(update={"routing": policy.routing.model_copy(update={"router": name})})
            routing, client = routing_of(chosen, settings)
            frontier.clear()
            told[name] = await _measured(routing, rows, chosen)
            told[name]["asked_frontier"] = round(len(frontier.requests()) / len(rows), 4)
            if client is not None:
                await client.aclose()
    return told


async def _measured(routing: Routing, rows: Sequence[Utterance], policy: Policy) -> dict[str, float]:
    alone: list[Pair] = []
    confirmed: list[Pair] = []
    times: list[float] = []
    for row in rows:
        started = time.perf_counter()
        finding = await routing.find(row.turn(), within=policy.routing.deadline)
        times.append(1000 * (time.perf_counter() - started))
        alone.append((row.agent.value, finding.agent.value))
        # Without a knowledge base, so that what is measured depends on no tenant's documents.
        case = Case(finding, Retrieved(), policy.routing, policy.default_agent, first=row.asked is None)
        confirmed.append((row.agent.value, confirm(case)[0].value))
    return {
        "rows": float(len(rows)),
        "accuracy": accuracy(alone),
        "macro_f1": round(macro_f1(alone), 4),
        "confirmed_accuracy": accuracy(confirmed),
        "confirmed_macro_f1": round(macro_f1(confirmed), 4),
        **{f"confirmed_recall_{agent}": share for agent, share in recalls(confirmed).items()},
        "ms_p50": round(statistics.median(times), 3),
        "ms_p95": round(statistics.quantiles(times, n=20)[-1], 3),
    }


def accuracy(found: Sequence[Pair]) -> float:
    """Return the share of pairs (wanted, got) that agree."""
    return round(sum(wanted == got for wanted, got in found) / len(found), 4)


def macro_f1(found: Sequence[Pair]) -> float:
    """Return the mean, over the agents that are wanted, of how well each one is found, of pairs (wanted, got)."""
    scores: list[float] = []
    for agent in {wanted for wanted, _ in found}:
        right = sum(wanted == got == agent for wanted, got in found)
        named = sum((wanted == agent) + (got == agent) for wanted, got in found)
        scores.append(2 * right / named)
    return sum(scores) / len(scores)


def recalls(found: Sequence[Pair]) -> dict[str, float]:
    """Return how much of each wanted agent's was given to it."""
    wanted = Counter(pair[0] for pair in found)
    right = Counter(want for want, got in found if want == got)
    return {str(agent): round(right[agent] / wanted[agent], 4) for agent in ANSWERING if agent in wanted}


def public(data: Path) -> list[Utterance]:
    """Return messages of public sets, with the agent that their label names: other people's words, in English."""
    found: list[Utterance] = []
    seen: Counter[str] = Counter()
    agents = {label: agent for agent, labels in _CLINC.items() for label in labels}
    rows = [(text, label, agents.get(label)) for text, label in read(data / "clinc150_train.jsonl")]
    for text, label in read(data / "banking77_train.jsonl"):
        rows.append((text, label, Agent.SUPPORT if _TROUBLE.search(label) else None))
    for text, label, agent in rows:
        if agent is None or seen[label] == _MOST:
            continue
        seen[label] += 1
        past = "Tell me about it" if label in _REPLIES or agent is Agent.ADAPTIVE_RESPONSE else None
        found.append(Utterance(text, agent, "en", past, open=label in _REPLIES))
    return found
