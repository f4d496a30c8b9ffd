"""Why a message needs more care than others: deterministic checks, whichever router decides.

They look for the plain forms. What they miss meets the agents' own defences: delimited text, schemas, the sanitiser.
"""

from typing import Final

from infra.postgres.inbox import Prepared
from schemas.briefs import Risk
from schemas.guardrail_policy import AbusePolicy
from workers.guardrails.abuse import Judgement, judge
from workers.orchestrator.finding import MAX_READ
from workers.orchestrator.words import pattern

_CARE: Final = tuple((risk, pattern(risk)) for risk in (Risk.INVOICE, Risk.LEGAL, Risk.PRICE_COMMITMENT))


def judged_by(turn: Prepared, policy: AbusePolicy | None = None) -> Judgement:
    """Return whether a message is abuse, orders to the model or spam."""
    return judge(turn.text[:MAX_READ], earlier=[past.asked for past in turn.past], policy=policy)


def risk_of(turn: Prepared, policy: AbusePolicy | None = None) -> Risk:
    """Return the gravest risk of a message: abuse, orders to the model and spam before what only needs care."""
    judged = judged_by(turn, policy)
    if judged.risk is not Risk.NONE:
        return judged.risk
    text = turn.text[:MAX_READ].lower()
    return next((risk for risk, words in _CARE if words.search(text)), Risk.NONE)
