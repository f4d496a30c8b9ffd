"""Further searches: questions about several things taken apart, repeated ones asked from another angle."""

import asyncio

import pytest

from benchmarks.claims import claim_of, found
from infra.postgres.inbox import PastTurn
from schemas.agents import Agent
from schemas.answer_policy import AnswerPolicy
from schemas.briefs import Brief, Fact
from schemas.knowledge import Passage, Retrieved
from workers.agents.lookup import look_up
from workers.agents.offered import offered
from workers.agents.technical_consultant.parts import parts

POLICY = AnswerPolicy(lookup_seconds=0.2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Do Shopify and SAP send webhooks, and how are they signed?",
            ("Do Shopify send webhooks", "Do SAP send webhooks", "how are they signed?"),
        ),
        (
            "Can your API integrate with NetSuite, SAP Business One and Shopify Plus?",
            (
                "Can your API integrate with NetSuite?",
                "Can your API integrate with SAP Business One?",
                "Can your API integrate with Shopify Plus?",
            ),
        ),
        ("How does SSO work with Okta? What about SCIM?", ("How does SSO work with Okta?", "What about SCIM?")),
        (
            "Does `orders.create` or `orders.update` fire first?",
            ("Does `orders.create` fire first?", "Does `orders.update` fire first?"),
        ),
        (
            "Läuft das mit Oracle oder MySQL, und wie wird gesichert?",
            ("Läuft das mit Oracle", "Läuft das mit MySQL", "wie wird gesichert?"),
        ),
        ("What is the rate limit?", ("What is the rate limit?",)),
        (" hi ", ("hi",)),
    ],
)
def test_a_question_is_taken_apart(text: str, expected: tuple[str, ...]) -> None:
    """Clauses, and names beside each other, each become a question of their own; one question stays itself."""
    assert parts(text, most=4) == expected


def test_no_more_parts_than_wanted() -> None:
    """A list of any length costs a bounded number of searches."""
    assert len(parts("Do you support A1, B2, C3, D4, E5, F6 and G7?", most=4)) == 4


class Shelf:
    """A knowledge base that has a passage for each word it was given, and remembers what it was asked."""

    def __init__(self, *words: str, hangs_on: str = "", breaks_on: str = "") -> None:
        self.words = words
        self.hangs_on = hangs_on
        self.breaks_on = breaks_on
        self.asked: list[tuple[str, str, str]] = []

    async def retrieve(self, tenant: str, text: str, *, language: str) -> Retrieved:
        """Find the passages whose word is in `text`."""
        self.asked.append((tenant, text, language))
        if self.hangs_on and self.hangs_on in text:
            await asyncio.sleep(60)
        if self.breaks_on and self.breaks_on in text:
            raise ConnectionError("gone")
        passages = tuple(Passage(passage_id=w, source=w, text=w) for w in self.words if w in text)
        return Retrieved(state="found" if passages else "nothing", passages=passages, answerable=bool(passages))


SHOPIFY = Passage(passage_id="Shopify", source="Shopify", text="Shopify")


async def test_each_part_is_looked_up_and_the_best_of_each_come_first() -> None:
    """What is found for the whole question and for its parts is one list without repetition."""
    shelf = Shelf("Shopify", "SAP", "signed")
    text = "Do Shopify and SAP send webhooks, and how are they signed?"
    claim = await look_up(
        claim_of(Agent.TECHNICAL_CONSULTANT, text, brief=found(SHOPIFY, language="de")), shelf.retrieve, POLICY
    )
    assert sorted(shelf.asked) == [
        ("acme", "Do SAP send webhooks", "de"),
        ("acme", "Do Shopify send webhooks", "de"),
        ("acme", "how are they signed?", "de"),
    ]
    assert [p.passage_id for p in claim.brief.retrieved.passages] == ["Shopify", "SAP", "signed"]


@pytest.mark.parametrize("trouble", [Shelf("Shopify", "SAP", hangs_on="SAP"), Shelf("Shopify", "SAP", breaks_on="SAP")])
async def test_a_lookup_that_hangs_or_breaks_is_left_out(trouble: Shelf) -> None:
    """The turn goes on with what is there when the time is over."""
    claim = claim_of(Agent.TECHNICAL_CONSULTANT, "Do Shopify and SAP send webhooks?", brief=found(SHOPIFY))
    async with asyncio.timeout(5):
        claim = await look_up(claim, trouble.retrieve, POLICY)
    assert [p.passage_id for p in claim.brief.retrieved.passages] == ["Shopify"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_other_turns_cost_no_search() -> None:
    """Other agents, single questions that were looked up, and tenants without a knowledge base ask for nothing."""
    shelf = Shelf("Shopify")
    two = "Do Shopify and SAP send webhooks?"
    for claim in (
        claim_of(Agent.SUPPORT, two, brief=found(SHOPIFY)),
        claim_of(Agent.TECHNICAL_CONSULTANT, "Do Shopify orders send webhooks?", brief=found(SHOPIFY)),
        claim_of(Agent.TECHNICAL_CONSULTANT, two),
    ):
        assert await look_up(claim, shelf.retrieve, POLICY) is claim
    assert shelf.asked == []


async def test_what_the_orchestrator_missed_is_made_up_for() -> None:
    """Where the search for the whole question was late, a single question is looked up after all."""
    late = Brief(retrieved=Retrieved(state="late"))
    claim = claim_of(Agent.TECHNICAL_CONSULTANT, "Does Shopify send webhooks?", brief=late)
    claim = await look_up(claim, Shelf("Shopify").retrieve, POLICY)
    assert claim.brief.retrieved.state == "found"
    nothing = await look_up(claim_of(Agent.TECHNICAL_CONSULTANT, "x?", brief=late), Shelf().retrieve, POLICY)
    assert nothing.brief.retrieved.state == "late"


async def test_a_repeated_question_is_searched_from_another_angle_once_nothing_is_fresh() -> None:
    """Where all that was found was used before, buyers' facts and earlier questions widen the search."""
    shelf = Shelf("Shopify", "cold", "SAP")
    past = (
        PastTurn("And SAP?", "<p>Yes.</p>", Agent.SUPPORT, 1, "support", ()),
        PastTurn("Shopify?", "<p>Yes.</p>", Agent.SUPPORT, 2, "support", ("Shopify",)),
    )
    fact = Fact(dimension="team", value="cold store", seq=1, confidence=0.9)
    brief = found(SHOPIFY).model_copy(update={"facts": (fact,)})
    claim = await look_up(claim_of(Agent.ADAPTIVE_RESPONSE, "Shopify?", brief=brief, past=past), shelf.retrieve, POLICY)
    assert [text for _, text, _ in shelf.asked] == ["Shopify? cold store", "Shopify? And SAP?"]
    assert [p.passage_id for p in offered(claim)] == ["cold", "SAP"]
    fresh = claim_of(Agent.ADAPTIVE_RESPONSE, "Shopify?", brief=brief)
    assert await look_up(fresh, shelf.retrieve, POLICY) is fresh
