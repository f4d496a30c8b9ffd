"""What an answer's diagram becomes: files, links at the end of the answer, and nothing that can fail a turn."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest
from pydantic import JsonValue

from infra.policy import load_policy
from infra.postgres.assets import Assets
from infra.postgres.claims import Claim
from infra.postgres.retention import Retention
from infra.settings import Settings
from schemas.agents import Agent, Lane
from schemas.asset_policy import AssetPolicy, ImagePolicy
from schemas.assets import MAX_ASSET_BYTES, MediaType
from schemas.frames import Phase
from schemas.ids import TurnId
from schemas.outcomes import Answer, Answered, Ending
from schemas.policy import RetentionDays
from simulators.control import FaultKind
from tests.support.pipeline import TENANT, Pipeline, content_of, patient, pipeline
from workers.answers.writer import FrameWriter
from workers.assets.attach import Attachments
from workers.assets.rules import check_svg
from workers.upkeep.forgetter import Forgetter

ASKED: Final = "Please create a flowchart of the returns process"
DESCRIBED: Final[dict[str, JsonValue]] = {
    "title": 'Returns <b>"now"</b>',
    "nodes": [{"id": "a", "label": "Asked"}, {"id": "b", "label": "Booked"}],
    "edges": [{"from": "a", "to": "b", "label": None}],
}
HREF: Final = re.compile(r'<a href="(/v1/assets/([A-Za-z0-9_-]{32}))" rel="noopener noreferrer nofollow">([^<]+)</a>')


@asynccontextmanager
async def generating(database_url: str, redis_url: str, assets: AssetPolicy | None = None) -> AsyncGenerator[Pipeline]:
    """The pipeline under a policy for assets."""
    policy = patient(load_policy()).model_copy(update={"assets": assets or AssetPolicy()})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        yield p


async def _claimed(p: Pipeline, conversation: str = "c1") -> tuple[Claim, FrameWriter]:
    """Bring a turn as far as its model's end, with text on the screen."""
    turn = await p.queue(conversation, ASKED)
    executor = p.runtime.executor
    claim = await executor.claim(turn, Lane.CONTENT_GENERATOR)
    assert claim is not None
    assert claim.agent is Agent.CONTENT_GENERATOR
    writer = await executor.arm(claim)
    assert await executor.show(claim, writer, claim.ordinal, "<p>Here it is.</p>")
    writer.finish()
    return claim, writer


def _answered(writer: FrameWriter, described: JsonValue = DESCRIBED) -> Answered:
    return Answered(Answer(writer.content, writer.cuts, "content", "primary", 1, "gpt-5.5", diagram=described))


async def _end(p: Pipeline, claim: Claim, writer: FrameWriter, ending: Ending) -> None:
    executor = p.runtime.executor
    ending = await executor.attachments.appended(claim, writer, ending)
    await executor.settle(claim, await executor.prompt(claim), writer, ending)


async def _kept(p: Pipeline, turn: TurnId) -> dict[str, bytes]:
    rows = await p.query(
        "SELECT asset_id, content FROM assets WHERE turn_id = CAST(:t AS uuid) ORDER BY created_at", t=turn
    )
    return {str(row["asset_id"]): bytes(row["content"]) for row in rows if isinstance(row["content"], bytes)}


async def test_an_answer_ends_with_links_to_its_diagram(database_url: str, redis_url: str) -> None:
    """The turn is one answer whose last words link to a drawing and its source, as watchers and ledger both have it."""
    async with generating(database_url, redis_url) as p:
        claim, writer = await _claimed(p)
        await _end(p, claim, writer, _answered(writer))

        row, frames, kept = await p.row(claim.turn_id), await p.log(claim.turn_id), await _kept(p, claim.turn_id)
        assert row["state"] == "answered"
        assert content_of(frames) == row["content"]
        assert [frame.phase for frame in frames if frame.terminal] == [Phase.DONE]
        text, _, links = str(row["content"]).partition("<p>Here it is.</p>")
        assert text == ""
        assert [(found[2], found[3]) for found in HREF.finditer(links)] == list(
            zip(kept, ['Returns &lt;b&gt;"now"&lt;/b&gt;', "Mermaid"], strict=True)
        )
        assert HREF.sub("", links) == "<p> · </p>"
        drawn, source = kept.values()
        check_svg(drawn)
        assert source.startswith(b"flowchart TB\n")


async def test_settled_twice_is_stored_once(database_url: str, redis_url: str) -> None:
    """Whoever answers the turn again gets the same files under the same addresses, absolute ones where the installation
    knows its own; another turn gets its own."""
    async with generating(database_url, redis_url) as p:
        claim, _ = await _claimed(p)
        attach = p.runtime.executor.attachments.attach
        first, *others = await asyncio.gather(*(attach(claim, DESCRIBED) for _ in range(4)))
        assert first is not None
        assert others == [first] * 3
        assert len(await _kept(p, claim.turn_id)) == 2
        with pytest.raises(Exception, match="assets_content_check"):
            await Assets(p.engine).keep(claim.turn_id, MediaType.PNG, b"x" * (MAX_ASSET_BYTES + 1))

        other, _ = await _claimed(p, "c2")
        assert await attach(other, DESCRIBED) not in (first, None)

        attachments = Attachments.of(Settings(public_url="https://chat.example.com/x/"), AssetPolicy(), p.engine)
        assert await attachments.attach(claim, DESCRIBED) == first.replace("/v1/", "https://chat.example.com/x/v1/")


async def test_whatever_goes_wrong_the_answer_is_whole(database_url: str, redis_url: str) -> None:
    """No diagram, one that is none, one that is late, a turn that is gone, a policy that forbids, a ledger without the
    table: each answer is settled as its model wrote it."""
    async with generating(database_url, redis_url) as p:
        usual = p.runtime.executor.attachments
        settings = Settings(public_url=None)
        late = Attachments.of(settings, AssetPolicy(seconds=1e-9), p.engine)
        forbidden = Attachments.of(settings, AssetPolicy(diagrams=False), p.engine)
        claim, writer = await _claimed(p)
        gone = replace(claim, turn_id=TurnId("00000000-0000-4000-8000-000000000001"))
        ending = _answered(writer)
        unsound = _answered(writer, {**DESCRIBED, "nodes": []})
        assert await usual.appended(claim, writer, _answered(writer, None)) == _answered(writer, None)
        assert await usual.appended(claim, writer, unsound) == unsound
        assert await late.appended(claim, writer, ending) == ending
        assert await usual.appended(gone, writer, ending) == ending
        assert await forbidden.appended(claim, writer, ending) == ending
        await p.query("ALTER TABLE assets RENAME TO elsewhere")
        await _end(p, claim, writer, ending)
        await p.query("ALTER TABLE elsewhere RENAME TO assets")

        row = await p.row(claim.turn_id)
        assert (row["state"], row["content"]) == ("answered", "<p>Here it is.</p>")
        assert await _kept(p, claim.turn_id) == {}


async def test_assets_are_forgotten_with_their_conversation(database_url: str, redis_url: str) -> None:
    """When retention forgets the conversation its files are gone; those of another conversation stay."""
    async with generating(database_url, redis_url) as p:
        for conversation in ("old", "new"):
            claim, writer = await _claimed(p, conversation)
            await _end(p, claim, writer, _answered(writer))
        for table, column in (("turns", "created_at"), ("turns", "done_at"), ("conversations", "created_at")):
            await p.query(f"UPDATE {table} SET {column} = {column} - interval '99 days' WHERE conversation_id = 'old'")
        forgetter = Forgetter(Retention(p.engine, days=RetentionDays()))

        assert await forgetter.run_once() >= 1
        left = await p.query("SELECT DISTINCT conversation_id AS c, tenant_id AS t FROM assets")
        assert [(row["c"], row["t"]) for row in left] == [("new", TENANT)]


IMAGES: Final = AssetPolicy(image=ImagePolicy(model="gpt-image-1", seconds=5, per_day=2))


async def test_an_image_of_the_diagram_is_linked_within_the_budget(database_url: str, redis_url: str) -> None:
    """Where the policy names a model each diagram has its image, as many as a tenant may ask for in a day."""
    async with generating(database_url, redis_url, IMAGES) as p:
        shown: list[str] = []
        for number in range(3):
            claim, writer = await _claimed(p, f"c{number}")
            await _end(p, claim, writer, _answered(writer))
            shown.append(str((await p.row(claim.turn_id))["content"]))

        assert [html.count(">PNG</a>") for html in shown] == [1, 1, 0]
        assert [html.count(">Mermaid</a>") for html in shown] == [1, 1, 1]
        asked = [call for call in p.openai.requests() if call["path"] == "/v1/images/generations"]
        assert [(call["model"], call["turn"]) for call in asked] == [("gpt-image-1", None)] * 2
        made = await p.query("SELECT content FROM assets WHERE media_type = 'image/png'")
        assert all(bytes(row["content"]).startswith(b"\x89PNG") for row in made if isinstance(row["content"], bytes))


async def test_an_image_that_is_not_made_is_left_out(database_url: str, redis_url: str) -> None:
    """A model that refuses, hangs, or answers with an address costs the image only, and the address is not fetched, as
    does a budget that cannot be looked up; a replay in the shadow asks for none."""
    faults: tuple[FaultKind, ...] = ("status", "hang", "malformed")
    policy = AssetPolicy(image=ImagePolicy(model="gpt-image-1", seconds=0.3))
    async with generating(database_url, redis_url, policy) as p:
        for fault in faults:
            claim, writer = await _claimed(p, fault)
            p.openai.control(fault=fault)
            await _end(p, claim, writer, _answered(writer))
            row = await p.row(claim.turn_id)
            assert row["state"] == "answered"
            assert [found[3] for found in HREF.finditer(str(row["content"]))][1:] == ["Mermaid"]
        assert [call["path"] for call in p.openai.requests()] == ["/v1/images/generations"] * len(faults)

        claim, _ = await _claimed(p)
        links = await p.runtime.executor.attachments.attach(replace(claim, conversation_id="replay.x.1"), DESCRIBED)
        assert ">Mermaid</a>" in (links or "")
        assert len(p.openai.requests()) == len(faults)

        await p.query("ALTER TABLE image_days RENAME TO elsewhere")
        assert await p.runtime.executor.attachments.attach(claim, DESCRIBED) == links
