"""What the small model is told."""

import json
import re

from schemas.agents import Agent
from workers.agents.artefact import artefact
from workers.agents.discovery.checks import echoes
from workers.agents.discovery.taxonomy import NEXT_STEPS, taxonomy

PROMPT = artefact(Agent.DISCOVERY)


def test_the_form_comes_first_and_again_at_the_end() -> None:
    """The JSON object is shown within the first lines; the reminder says one object, one question, the language."""
    assert PROMPT.instructions.index('{"dimension"') < 300
    assert all(word in PROMPT.reminder for word in ("JSON object", "question mark", "language"))


def test_every_dimension_is_explained() -> None:
    """The prompt explains exactly the dimensions of the taxonomy, and the next steps."""
    explained = set(re.findall(r"(?:^|[-.]) ?(\w+): ", PROMPT.instructions, re.MULTILINE))
    assert explained & {*taxonomy().dimensions, NEXT_STEPS} == {*taxonomy().dimensions, NEXT_STEPS}


def test_examples_stand_at_the_boundaries() -> None:
    """There are right and wrong ones, each with its reason; the right ones keep to the form, the wrong ones do not."""
    assert {example.good for example in PROMPT.examples} == {True, False}
    for example in PROMPT.examples:
        assert example.why
        if example.good:
            written = json.loads(example.answer)
            assert list(written) == ["dimension", "html_response"]
            assert written["dimension"] in taxonomy().dimensions
            assert written["html_response"].count("?") == 1


def test_no_example_has_a_real_value() -> None:
    """What could be a name or a number is a placeholder, so that no example can leak into an answer unseen."""
    for example in PROMPT.examples:
        assert not re.search(r"\d|@|https?:", example.asked + re.sub("<[^>]*>", "", example.answer))


def test_what_echoes_an_example_is_found() -> None:
    """A sentence of an example is known again whatever its markup and case; others are not."""
    assert echoes("<p>which report of <em>competitor</em> would you miss most</p>") == "echo"
    assert echoes("Which report would you miss most?") is None


def test_the_prompt_keeps_to_its_share() -> None:
    """Instructions, form and examples leave most of the 3,600 tokens to the conversation."""
    assert len(PROMPT.system.encode()) // 3 < 1_100
