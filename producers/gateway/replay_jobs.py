"""Replay jobs for operators: planned, begun, watched, paused, resumed, aborted; old answers beside new ones."""

import difflib
import html
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from infra.postgres import replays
from infra.postgres.replay_items import AnswerView, ItemView, load_items
from infra.postgres.replays import ReplayJob, ReplayPlan, ReplayRequest
from producers.gateway.auth import Operator, Principal
from producers.gateway.dead_letters import DeadLetterSummary
from producers.gateway.documents import error_responses
from producers.gateway.operators import (
    FILTER_EXAMPLE,
    CursorText,
    JobPath,
    Limit,
    Reveal,
    cursor_of,
    operator_of,
    owner_of,
    place_of,
    required_filter,
    unknown,
)
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError
from producers.gateway.strict_json import StrictJsonRoute
from schemas.letter_filter import MAX_CHARS
from schemas.replays import Outcome, ReplayMode

router = APIRouter(tags=["replay"], route_class=StrictJsonRoute)

_THE_END: Final = (datetime(9999, 1, 1, tzinfo=UTC), "")

JobState = Literal["running", "paused", "finished", "aborted", "stopped"]
ItemState = Literal["waiting", "running", "answered", "failed", "skipped"]


class ReplayJobRequest(BaseModel):
    """Which dead letters to answer anew, and how."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"where": FILTER_EXAMPLE, "mode": "shadow", "rate": 20, "dry_run": True}]},
    )

    where: Annotated[str, Field(max_length=MAX_CHARS)]
    """A filter. It may not be empty."""
    mode: ReplayMode = "shadow"
    """`shadow` answers into the record, `compare` sets that beside the old answer, `deliver` shows it."""
    rate: Annotated[float, Field(ge=0.01, le=1_000_000)] = 20.0
    """Dead letters a second at most."""
    max: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Dead letters at most, the oldest."""
    stop_percent: Annotated[float, Field(ge=0.1, le=100)] = 20.0
    """The job stops by itself once more than this share of at least 20 replays failed."""
    late: bool = False
    """Deliver also where the conversation has moved on."""
    dry_run: bool = False
    """Only say what would happen."""


class ReplayPlanView(BaseModel):
    """What would happen now, to how many."""

    counts: dict[Outcome, int]
    sample: list[DeadLetterSummary]
    """Some of those that would be answered, oldest first."""
    model_calls: float
    """Expected, as the tenant's recent turns needed."""
    tokens: float | None
    """Expected; null where no model said what it used."""
    seconds: float
    """Expected duration."""


class ReplayJobView(BaseModel):
    """A replay job and how far it is."""

    model_config = ConfigDict(from_attributes=True)

    job_id: str
    where: str
    mode: ReplayMode
    rate: float
    max: Annotated[int, Field(validation_alias="most")]
    stop_percent: float
    late: bool
    state: JobState
    reason: str | None
    """Why it stopped."""
    created_by: str
    """The id of the operator's key."""
    created_at: datetime
    ended_at: datetime | None
    total: int
    waiting: int
    running: int
    answered: int
    failed: int
    skipped: int
    eta_seconds: float | None
    """To its end if it goes on as it has; null when it does not run."""


class ReplayJobCreated(BaseModel):
    """The plan, and the job unless it was a dry run."""

    job: ReplayJobView | None
    plan: ReplayPlanView


class ReplayJobPage(BaseModel):
    """Replay jobs, latest first."""

    jobs: list[ReplayJobView]
    next: str | None
    """Cursor of the next page; null on the last one."""


class ReplayAnswer(BaseModel):
    """How one turn ended."""

    turn_id: str
    state: str
    agent: str | None
    model: str | None
    text: str | None
    """The answer as plain text; null unless it was revealed."""
    characters: int
    tokens: int | None
    seconds: float | None
    """From recording to end."""


class ReplayItem(BaseModel):
    """What became of one dead letter."""

    position: int
    dead_letter_id: str
    conversation_id: str | None
    state: ItemState
    note: str | None
    """Why it was skipped or did not end `answered`; `sent_back` for a record put back on its topic."""
    started_at: datetime | None
    ended_at: datetime | None
    old: ReplayAnswer | None
    new: ReplayAnswer | None
    same: bool | None
    """Whether both texts are the same; null while one is missing."""
    difference: str | None
    """A unified diff of the plain texts; null unless it was revealed and both are there."""


class ReplayItemPage(BaseModel):
    """Items of a job in its order."""

    items: list[ReplayItem]
    next: int | None
    """`after` of the next page; null on the last one."""


@router.post(
    "/v1/replay-jobs",
    operation_id="createReplayJob",
    summary="Answer dead letters anew",
    status_code=201,
    responses={
        200: {"model": ReplayJobCreated, "description": "A dry run"},
        **error_responses(400, 401, 403, 408, 413, 422, 503),
    },
)
async def create_replay_job(
    body: ReplayJobRequest, response: Response, principal: Operator, parts: PartsOf
) -> ReplayJobCreated:
    """Begin a job, or with `dry_run` say what it would do: counts, a sample, calls, tokens, time."""
    required_filter(body.where)
    owner = owner_of(principal)
    request = ReplayRequest(
        where=body.where,
        mode=body.mode,
        rate=body.rate,
        most=body.max,
        stop_percent=body.stop_percent,
        late=body.late,
    )
    plan = _plan(await replays.plan(parts.engine, owner, request))
    if body.dry_run:
        response.status_code = 200
        return ReplayJobCreated(job=None, plan=plan)
    job_id = await replays.create(parts.engine, owner, request, operator=operator_of(principal))
    response.headers["Location"] = f"/v1/replay-jobs/{job_id}"
    return ReplayJobCreated(job=_view(await _load(parts, principal, job_id)), plan=plan)


@router.get(
    "/v1/replay-jobs",
    operation_id="listReplayJobs",
    summary="List replay jobs",
    responses=error_responses(401, 403, 422, 503),
)
async def list_replay_jobs(
    principal: Operator, parts: PartsOf, limit: Limit = 50, cursor: CursorText = None
) -> ReplayJobPage:
    """Return the tenant's jobs, latest first."""
    before = place_of(cursor) if cursor else _THE_END
    found = await replays.list_jobs(parts.engine, tenant=principal.tenant, before=before, limit=limit + 1)
    page, more = found[:limit], len(found) > limit
    return ReplayJobPage(
        jobs=[_view(job) for job in page], next=cursor_of(page[-1].created_at, page[-1].job_id) if more else None
    )


@router.get(
    "/v1/replay-jobs/{job_id}",
    operation_id="getReplayJob",
    summary="Ask how far a replay job is",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def get_replay_job(job_id: JobPath, principal: Operator, parts: PartsOf) -> ReplayJobView:
    """Return its state, its counts and when it is expected to end."""
    return _view(await _load(parts, principal, job_id))


@router.get(
    "/v1/replay-jobs/{job_id}/items",
    operation_id="listReplayItems",
    summary="List what became of each dead letter of a job",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def list_replay_items(
    job_id: JobPath,
    principal: Operator,
    parts: PartsOf,
    state: Annotated[ItemState | None, Query(description="Only items in this state.")] = None,
    after: Annotated[int, Query(ge=0, le=2_000_000_000, description="`next` of the page before this one.")] = 0,
    limit: Limit = 50,
    reveal: Reveal = "false",
) -> ReplayItemPage:
    """Return the items in order, old answer beside new; their texts and differences with `reveal`."""
    await _load(parts, principal, job_id)
    shown = reveal == "true"
    found = await load_items(
        parts.engine,
        tenant=principal.tenant,
        job_id=job_id,
        state=state,
        after=after,
        limit=limit,
        reveal_to=operator_of(principal) if shown else None,
    )
    items = [_item(item, shown=shown) for item in found]
    return ReplayItemPage(items=items, next=found[-1].position if len(found) == limit else None)


@router.post(
    "/v1/replay-jobs/{job_id}/pause",
    operation_id="pauseReplayJob",
    summary="Pause a replay job",
    responses=error_responses(401, 403, 404, 409, 422, 503),
)
async def pause_replay_job(job_id: JobPath, principal: Operator, parts: PartsOf) -> ReplayJobView:
    """Start nothing more of it until it is resumed. What is under way goes on."""
    return await _changed(parts, principal, job_id, "paused")


@router.post(
    "/v1/replay-jobs/{job_id}/resume",
    operation_id="resumeReplayJob",
    summary="Resume a paused replay job",
    responses=error_responses(401, 403, 404, 409, 422, 503),
)
async def resume_replay_job(job_id: JobPath, principal: Operator, parts: PartsOf) -> ReplayJobView:
    """Go on where it was paused."""
    return await _changed(parts, principal, job_id, "running")


@router.post(
    "/v1/replay-jobs/{job_id}/abort",
    operation_id="abortReplayJob",
    summary="Abort a replay job",
    responses=error_responses(401, 403, 404, 409, 422, 503),
)
async def abort_replay_job(job_id: JobPath, principal: Operator, parts: PartsOf) -> ReplayJobView:
    """Start nothing more of it, ever. What is under way goes on and is counted."""
    return await _changed(parts, principal, job_id, "aborted")


async def _load(parts: Parts, principal: Principal, job_id: str) -> ReplayJob:
    found = await replays.load_job(parts.engine, tenant=principal.tenant, job_id=job_id)
    if found is None:
        raise unknown("replay job")
    return found


async def _changed(
    parts: Parts, principal: Principal, job_id: str, state: Literal["paused", "running", "aborted"]
) -> ReplayJobView:
    done = await replays.change(
        parts.engine, tenant=principal.tenant, job_id=job_id, state=state, operator=operator_of(principal)
    )
    job = await _load(parts, principal, job_id)
    # Asked for twice it is as it was wanted. A job that finished the moment it was resumed was resumed all the same.
    if not done and job.state != state:
        raise ProblemError(
            409,
            "job_state",
            "The job is in another state",
            f"It is {job.state}: only one that has not ended changes.",
        )
    return _view(job)


def _view(job: ReplayJob) -> ReplayJobView:
    return ReplayJobView.model_validate(job)


def _plan(plan: ReplayPlan) -> ReplayPlanView:
    return ReplayPlanView(
        counts=plan.counts,
        sample=[DeadLetterSummary.model_validate(letter) for letter in plan.sample],
        model_calls=round(plan.model_calls, 1),
        tokens=plan.tokens,
        seconds=round(plan.seconds, 1),
    )


def _item(item: ItemView, *, shown: bool) -> ReplayItem:
    old, new = item.old, item.new
    both = old is not None and new is not None and new.seconds is not None
    return ReplayItem.model_validate(
        {
            "position": item.position,
            "dead_letter_id": item.dead_letter_id,
            "conversation_id": item.conversation_id,
            "state": item.state,
            "note": item.note,
            "started_at": item.started_at,
            "ended_at": item.ended_at,
            "old": _answer(old, shown=shown) if old else None,
            "new": _answer(new, shown=shown) if new else None,
            "same": plain(old.html) == plain(new.html) if both and old and new else None,
            "difference": difference(plain(old.html), plain(new.html)) if shown and both and old and new else None,
        }
    )


def _answer(answer: AnswerView, *, shown: bool) -> ReplayAnswer:
    text = plain(answer.html)
    return ReplayAnswer(
        turn_id=answer.turn_id,
        state=answer.state,
        agent=answer.agent,
        model=answer.model,
        text=text if shown else None,
        characters=len(text),
        tokens=answer.tokens,
        seconds=answer.seconds,
    )


def plain(answer: str) -> str:
    """Return the text of an answer as the ledger keeps it: sanitised HTML of a small allow-list."""
    lines = re.sub(r"<br>|<li>|</?(?:p|ul|ol|pre|blockquote|h3|h4)>", "\n", answer)
    return re.sub(r"\n{2,}", "\n", html.unescape(re.sub(r"<[^>]*>", "", lines))).strip()


def difference(old: str, new: str) -> str:
    """Return a unified diff of two texts; empty when they are the same."""
    return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "old", "new", lineterm=""))
