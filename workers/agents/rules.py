"""What an answer has to keep to in one turn: how much is held back, and which checks it has to pass."""

from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.gate_policy import GatePolicy, Hold
from schemas.guardrail_policy import CommitmentPolicy
from workers.agents.discovery.answer import open_dimensions
from workers.agents.discovery.checks import discovery_checks
from workers.agents.discovery.taxonomy import taxonomy
from workers.agents.phrases import phrases
from workers.agents.shape import answer_schema
from workers.answers.guard import Question, Rules
from workers.guardrails.commitments import commitment_check


def rules_of(
    claim: Claim, policy: GatePolicy, commitments: CommitmentPolicy, *, ordinal: int, offline: bool = False
) -> Rules:
    """Return the rules of one attempt.

    Args:
        claim: the turn.
        policy: what is held back.
        commitments: what may not be promised in whatever is held back.
        ordinal: of the attempt; nothing follows the second.
        offline: no model answers but rules of ours, which need no watching.
    """
    schema = answer_schema(claim)
    hold = _hold(claim, policy, offline=offline)
    if offline:
        return Rules(claim.agent, hold, schema)
    promised = commitment_check(claim, commitments)
    language, last = claim.brief.language, ordinal == 2
    if claim.agent is not Agent.DISCOVERY:
        declined = phrases(language).not_ours
        return Rules(claim.agent, hold, schema, checks=(promised,), declined=declined, last=last)
    data = taxonomy()
    question = Question(
        written=lambda dimension: data.question(dimension, language),
        otherwise=open_dimensions(claim)[0],
        longest=policy.longest,
    )
    checks = (promised, *discovery_checks(claim))
    return Rules(claim.agent, hold, schema, checks=checks, question=question, last=last)


def _hold(claim: Claim, policy: GatePolicy, *, offline: bool) -> Hold:
    if claim.agent is Agent.ADAPTIVE_RESPONSE and any(past.shown_html for past in claim.past):
        return "answer"  # whether it repeats earlier answers is known at its end
    return "decision" if offline else policy.hold_of(claim.agent, careful=claim.brief.risk.frontier_only)
