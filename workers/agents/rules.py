"""What an answer has to keep to in one turn: how much is held back, and which checks it has to pass."""

from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.gate_policy import GatePolicy
from schemas.guardrail_policy import CommitmentPolicy
from workers.agents.discovery.answer import open_dimensions
from workers.agents.discovery.checks import discovery_checks
from workers.agents.discovery.taxonomy import taxonomy
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
    if offline:
        return Rules(claim.agent, schema=schema)
    hold = policy.hold_of(claim.agent, careful=claim.brief.risk.frontier_only)
    promised = commitment_check(claim, commitments)
    if claim.agent is not Agent.DISCOVERY:
        return Rules(claim.agent, hold, schema, checks=(promised,), last=ordinal == 2)
    language, data = claim.brief.language, taxonomy()
    question = Question(
        written=lambda dimension: data.question(dimension, language),
        otherwise=open_dimensions(claim)[0],
        longest=policy.longest,
    )
    checks = (promised, *discovery_checks(claim))
    return Rules(claim.agent, hold, schema, checks=checks, question=question, last=ordinal == 2)
