"""Holes that the search of `tests/model` found, each on the real ledger and the real frame log."""

from infra.postgres.claims import Checkpoint, Claim
from infra.postgres.views import frames_of_view, load_turn
from infra.redis.frame_log import Stream
from schemas.agents import Lane
from schemas.frames import SEQ_ROUTED, Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from tests.support.pipeline import Pipeline, content_of, pipeline
from workers.answers.writer import FrameWriter


async def _streaming(p: Pipeline, turn: TurnId, *, rescue: bool = False) -> tuple[Claim, FrameWriter]:
    """Claim a turn and pass its commit point; nothing has reached the log yet."""
    claims = p.runtime.executor.claims
    claim = await (claims.rescue(turn) if rescue else claims.claim(turn))
    assert claim is not None
    writer = await p.runtime.executor.arm(claim)
    assert await claims.latch_visible(claim, claim.ordinal)
    return claim, writer


async def _checkpoint(p: Pipeline, claim: Claim, writer: FrameWriter) -> None:
    await p.runtime.executor.claims.renew([Checkpoint(claim.turn_id, claim.epoch, writer.content, writer.cuts)])


async def _lease_ends(p: Pipeline, turn: TurnId) -> None:
    await p.query(
        "UPDATE turns SET lease_until = clock_timestamp() - interval '1 second' WHERE turn_id = CAST(:t AS uuid)",
        t=turn,
    )
    await p.sweeper.run_once()


async def _told(p: Pipeline, turn: TurnId) -> str:
    view = await load_turn(p.engine, turn)
    assert view is not None
    return content_of(frames_of_view(view))


async def test_a_checkpoint_is_not_told_before_the_end(database_url: str, redis_url: str) -> None:
    """Text that no log has yet is not told from the ledger, so a rescue can still answer with other words."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        claim, writer = await _streaming(p, turn)
        writer.write("<p>Nobody has read this")
        await _checkpoint(p, claim, writer)

        assert (await p.row(turn))["content"] == "<p>Nobody has read this"
        assert await _told(p, turn) == ""

        await _lease_ends(p, turn)
        await p.answer(turn, Lane.FRONTIER_FALLBACK)
        row = await p.row(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert await _told(p, turn) == row["content"] == content_of(await p.log(turn))


async def test_a_rescue_forgets_the_checkpoint_of_the_attempt_it_replaces(database_url: str, redis_url: str) -> None:
    """When the rescuer dies too and Redis forgets, the turn does not end with words that nobody was shown."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        claim, writer = await _streaming(p, turn)
        writer.write("<p>Nobody has read this")
        await _checkpoint(p, claim, writer)
        await _lease_ends(p, turn)
        assert (await p.row(turn))["state"] == "rescue"

        _, rescuer = await _streaming(p, turn, rescue=True)
        rescuer.write("<p>Everybody has read this")
        await p.runtime.executor.publisher.drain(rescuer)
        await p.redis.flushall()
        await _lease_ends(p, turn)

        row = await p.row(turn)
        assert (row["state"], row["content"]) == ("bounded", "")


async def _behind_an_old_fence(p: Pipeline, *, checkpoint: bool) -> tuple[TurnId, FrameWriter]:
    """A rescuer streams, Redis forgets, and the worker it replaced thaws just then and arms."""
    turn = await p.queue("c1", "Hello there")
    frozen = await p.runtime.executor.claims.claim(turn)
    assert frozen is not None
    await _lease_ends(p, turn)
    claim, rescuer = await _streaming(p, turn, rescue=True)
    rescuer.write("<p>We count ")
    await p.runtime.executor.publisher.drain(rescuer)
    if checkpoint:
        await _checkpoint(p, claim, rescuer)
    await p.redis.flushall()
    await p.runtime.executor.arm(frozen)
    return turn, rescuer


async def test_an_older_fence_does_not_shut_the_owner_out(database_url: str, redis_url: str) -> None:
    """A thawed worker that arms after Redis forgot costs the present owner one rewrite, not the turn."""
    async with pipeline(database_url, redis_url) as p:
        turn, rescuer = await _behind_an_old_fence(p, checkpoint=False)

        rescuer.write("every pallet</p>")
        await p.runtime.executor.publisher.drain(rescuer)

        assert not rescuer.lost.is_set()
        frames = await p.log(turn)
        assert [frame.seq for frame in frames] == [1, 2, 3]
        assert content_of(frames) == "<p>We count every pallet</p>"


async def test_an_older_fence_does_not_speak_for_the_owner(database_url: str, redis_url: str) -> None:
    """Sealing behind an older fence knows that Redis forgot, and ends the turn from its checkpoint."""
    async with pipeline(database_url, redis_url) as p:
        turn, _ = await _behind_an_old_fence(p, checkpoint=True)

        await _lease_ends(p, turn)

        row = await p.row(turn)
        assert (row["state"], row["content"], row["closing"]) == ("truncated", "<p>We count ", "</p>")
        assert content_of(await p.log(turn)) == "<p>We count </p>"


async def test_a_log_finished_before_a_late_seal_is_no_error(database_url: str, redis_url: str) -> None:
    """A sealer that comes after the log was forgotten and completed under its own epoch is told so."""
    async with pipeline(database_url, redis_url) as p:
        turn = TurnId("00000000-0000-0000-0000-000000000003")
        info = TurnStreamInfo(turn, "c1", 0)
        stream = Stream(turn, "acme", "c1", 2)
        await p.frames.finish(stream, [render(info, SEQ_ROUTED, Phase.ROUTED), render(info, 2, Phase.FAILED, "Sorry")])

        sealed = await p.frames.seal(stream)

        assert sealed is not None
        assert not sealed.armed
        assert [frame.seq for frame in await p.log(turn)] == [1, 2]
