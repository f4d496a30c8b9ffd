"""Searching the knowledge base once more for the agents that need it: by parts, or from another angle."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from itertools import zip_longest

from structlog import get_logger

from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.answer_policy import AnswerPolicy
from schemas.knowledge import Passage, Retrieve, Retrieved
from workers.agents.adaptive_response.angles import angles
from workers.agents.offered import offered
from workers.agents.technical_consultant.parts import parts

log = get_logger(__name__)


async def look_up(claim: Claim, retrieve: Retrieve | None, policy: AnswerPolicy) -> Claim:
    """Return the claim with what further searches found; most turns need none and are returned as they are.

    What is not back in time is left out: the answer is made of what is there.
    """
    searches = _searches(claim, policy.lookups)
    if retrieve is None or not searches or claim.brief.retrieved.state == "off":
        return claim
    found = await _each(
        [retrieve(claim.tenant, search, language=claim.brief.language) for search in searches], policy.lookup_seconds
    )
    combined = combine([claim.brief.retrieved, *found])
    return replace(claim, brief=claim.brief.model_copy(update={"retrieved": combined}))


def _searches(claim: Claim, most: int) -> tuple[str, ...]:
    match claim.agent:
        case Agent.TECHNICAL_CONSULTANT:
            asked = parts(claim.text, most=most)
            missed = claim.brief.retrieved.state in ("late", "failed")
            return asked if len(asked) > 1 or missed else ()
        case Agent.ADAPTIVE_RESPONSE:
            return () if offered(claim) else angles(claim, most=most)
        case _:
            return ()


def combine(found: Sequence[Retrieved]) -> Retrieved:
    """Return what several searches found as one: their best first in turn, each passage once.

    The first is the search for the whole question; it says how things stand where no other one found anything.
    """
    good = [one for one in found if one.state == "found"]
    if not good:
        return found[0]
    ranks = zip_longest(*(one.passages for one in good))
    passages: dict[str, Passage] = {}
    for rank in ranks:
        for passage in rank:
            if passage is not None:
                passages.setdefault(passage.passage_id, passage)
    return Retrieved(
        state="found",
        passages=tuple(passages.values()),
        answerable=any(one.answerable for one in good),
        score=max(one.score for one in good),
        snapshot=next((one.snapshot for one in good if one.snapshot), None),
    )


async def _each(searches: Sequence[Awaitable[Retrieved]], seconds: float) -> list[Retrieved]:
    tasks = [asyncio.ensure_future(search) for search in searches]
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    failed = [task for task in done if task.exception() is not None]
    if late or failed:
        log.warning("lookups_missing", late=len(late), failed=len(failed), of=len(tasks))
    return [task.result() for task in tasks if task in done and task.exception() is None]
