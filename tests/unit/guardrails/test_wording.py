"""What may not be promised and what may not be shouted, as CI holds it: `python -m benchmarks.guardrails` as a test."""

import uuid

import pytest

from benchmarks.claims import claim_of
from benchmarks.guardrails.report import Outcome, abuse, commitments
from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.briefs import NO_BRIEF, Brief, Risk
from schemas.guardrail_policy import AbusePolicy, Commitment, CommitmentPolicy
from schemas.knowledge import Passage, Retrieved
from workers.guardrails.abuse import HARMLESS, judge
from workers.guardrails.commitments import commitment_check, problem
from workers.guardrails.wording import compiled, wording

FLOOR = 0.95


@pytest.mark.parametrize("outcome", [pytest.param(commitments(), id="commitments"), pytest.param(abuse(), id="abuse")])
def test_the_samples_are_judged_as_labelled(outcome: Outcome) -> None:
    """Of at least a hundred lines nearly all promises and abuses are stopped, and nearly nothing else is."""
    figures = outcome.figures()
    assert outcome.lines >= 100
    assert outcome.lines - outcome.to_stop >= 40
    assert figures["stopped"] >= FLOOR, outcome.missed
    assert figures["let through"] >= FLOOR, outcome.false
    assert figures["for the right reason"] >= FLOOR, outcome.mistaken


@pytest.mark.parametrize("name", ["commitments", "abuse"])
def test_every_pattern_finds_something_definite(name: str) -> None:
    """Each pattern of the shipped wording compiles and finds nothing in an empty text."""
    for language, kinds in wording(name).languages.items():
        for kind, patterns in kinds.items():
            for pattern in patterns:
                whole = compiled([pattern])
                assert whole is not None
                assert whole.search("") is None, f"{language} {kind} {pattern}"


def test_every_language_has_every_kind() -> None:
    """All five languages have wording for all five commitments."""
    for language in ("en", "de", "fr", "es", "it"):
        assert {*Commitment, "unless"} == wording("commitments").languages[language].keys()


def test_a_figure_may_be_quoted_and_no_other() -> None:
    """A price that stands in a passage may be told, in any notation; one that is only part of it may not."""
    passage = "Pro: 1.200,00 € a month, with 10% off for a year."
    assert problem("Pro costs €1,200 per month.", "en", [passage]) is None
    assert problem("Pro costs €1,20 per month.", "en", [passage]) == "promised_price"
    assert problem("Pro costs €200 per month.", "en", [passage]) is not None
    assert problem("We can lock in that price.", "en", [passage]) is not None


def test_an_offer_of_the_documentation_may_be_told_in_its_own_words() -> None:
    """An offer without a figure is told as its passage tells it, not otherwise; a legal assurance not even then."""
    trial, legal = "To explore it, we offer you a free trial.", "We guarantee that it is secure by law."
    assert problem(trial, "en", [f"Welcome!\n\n{trial} No card needed."]) is None
    assert problem(trial, "en", ["Welcome! A trial is free."]) == "promised_discount"
    assert problem(legal, "en", [legal]) == "promised_legal"
    assert problem("These values are not GDPR-compliant without consent.", "en") is None


def test_the_check_of_a_turn_knows_its_passages_and_its_language() -> None:
    """What guards a turn's answer allows the figures of that turn's passages and nothing else."""
    passage = Passage(passage_id="1", source="prices.md", text="Der Tarif Pro kostet 49 € im Monat.")
    brief = Brief(language="de", retrieved=Retrieved(state="found", passages=(passage,)))
    check = commitment_check(_claim(brief))
    assert check("<p>Pro kostet 49,00 € im Monat.</p>") is None
    assert check("<p>Pro kostet 39 € im Monat.</p>") == "promised_price"
    assert commitment_check(_claim(NO_BRIEF))("Pro costs €49 per month.") is not None
    assert commitment_check(_claim(NO_BRIEF), CommitmentPolicy(prohibited=()))("Pro costs €49 per month.") is None


def _claim(brief: Brief) -> Claim:
    return claim_of(Agent.SUPPORT, "What does Pro cost?", brief=brief)


def test_a_policy_narrows_and_widens() -> None:
    """An installation chooses what is prohibited and adds wording of its own."""
    lax = CommitmentPolicy(prohibited=(Commitment.LEGAL,), phrases={Commitment.LEGAL: (r"\bpinky swear\b",)})
    assert problem("I can give you a 20% discount.", "en", policy=lax) is None
    assert problem("Pinky swear, it works.", "en", policy=lax) == "promised_legal"
    assert judge("hello competitor").risk is Risk.NONE
    assert judge("hello competitor", policy=AbusePolicy(phrases={"spam": ("competitor",)})).reason.endswith("(policy)")
    assert judge("see https://a.example", policy=AbusePolicy(links=0)).risk is Risk.SPAM


def test_the_same_message_over_and_over_is_spam() -> None:
    """The fourth identical message is spam, whatever its case; a short yes is none."""
    text = "Send me the price list now"
    assert judge(text, earlier=[text, text.upper()]) == HARMLESS
    assert judge(text, earlier=[text, text.upper(), f"{text}!"]).reason == "the same message 4 times"
    assert judge("yes", earlier=["yes"] * 9) == HARMLESS


@pytest.mark.parametrize(
    "filler", ["a", "a ", "you are ", "http://x ", "we can give ", "$1 ", "1 day ", "\u200b", "ignore "]
)
def test_long_texts_take_no_longer_by_their_square(filler: str) -> None:
    """A long text of any one piece is judged within the test's clock, and its reason holds none of it."""
    text = filler * (16_000 // len(filler))
    problem(text, "xx")
    assert str(uuid.UUID(int=7)) not in judge(text + str(uuid.UUID(int=7))).reason
