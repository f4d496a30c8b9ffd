"""What becomes visible of an answer: held back, judged, ended."""

import json
from collections.abc import AsyncGenerator, Sequence

import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.redis.frame_log import Stream
from schemas.completions import (
    BackendFailed,
    CompletionRequest,
    Delta,
    Finish,
    LowConfidence,
    Malformed,
    ModelClocks,
    ProviderError,
)
from schemas.frames import TurnStreamInfo
from schemas.gate_policy import Hold
from schemas.ids import TurnId
from schemas.outcomes import Answered, AttemptEnding, FailedUnseen, Truncated
from workers.agents.discovery.answer import schema_of
from workers.agents.discovery.checks import bleeds, says_nothing
from workers.answers.attempt import run_attempt
from workers.answers.gate import Calibration, ConfidenceGate, Quality, decision_tokens
from workers.answers.guard import Guard, Question, Rules
from workers.answers.sanitise import ALLOWED, HtmlStream, to_text
from workers.answers.writer import FrameWriter

TURN = TurnId("00000000-0000-0000-0000-000000000001")
HOLDS: tuple[Hold, ...] = ("decision", "sentence", "answer")
CLEAN = nh3.Cleaner(**ALLOWED)
QUESTION = Question(written=lambda dimension: f"What about {dimension} & more?", otherwise="team", longest=30)
SCHEMA = schema_of(("budget", "team"))


def _rules(hold: Hold = "sentence", *, last: bool = False, question: Question | None = QUESTION) -> Rules:
    return Rules("discovery", hold, SCHEMA, checks=(bleeds, says_nothing), question=question, last=last)


class Saying:
    """A model that says what it is given, three characters a token, and then ends or breaks."""

    name = "saying"

    def __init__(self, said: str, *, breaks: ProviderError | None = None, chance: float = -0.01) -> None:
        self._said = said
        self._breaks = breaks
        self._chance = chance

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Say it."""
        for at in range(0, len(self._said), 3):
            token = self._said[at : at + 3]
            yield Delta(token, (self._chance,), (token,))
        if self._breaks is not None:
            raise self._breaks
        yield Finish("stop", input_tokens=1, output_tokens=2)

    async def aclose(self) -> None:
        """Hold nothing."""


async def _attempt(
    said: str,
    rules: Rules,
    *,
    breaks: ProviderError | None = None,
    gate: ConfidenceGate | None = None,
    chance: float = -0.01,
) -> tuple[AttemptEnding, list[str]]:
    """Return how one call ended and every piece that was shown."""
    request = CompletionRequest(TURN, 1, "m", (), SCHEMA, 400, ModelClocks(1, 1, 1, 1))
    writer = FrameWriter(stream=Stream(TURN, "acme", "c1", 1), info=TurnStreamInfo(TURN, "c1", 0))
    shown: list[str] = []

    async def show(html: str) -> bool:
        shown.append(html)
        writer.write(html)
        return True

    model = Saying(said, breaks=breaks, chance=chance)
    return await run_attempt(model, request, writer, show, "primary", rules=rules, gate=gate), shown


def _json(html: str, dimension: str = "budget", **more: object) -> str:
    return json.dumps({"dimension": dimension, **more, "html_response": html})


GOOD = "<p>That adds up. We see it <strong>often</strong>. What would it have to save?</p>"


@pytest.mark.parametrize("hold", HOLDS)
async def test_a_good_answer_is_shown_as_it_is(hold: Hold) -> None:
    """Whatever is held back, in the end a good answer is there as the model wrote it, and nothing is noted."""
    ending, shown = await _attempt(_json(GOOD), _rules(hold))
    assert isinstance(ending, Answered)
    assert (ending.answer.html, ending.answer.mended, ending.answer.dimension) == (GOOD, None, "budget")
    assert len(shown) == {"decision": len(shown), "sentence": 3, "answer": 1}[hold]


@pytest.mark.parametrize(
    ("html", "code"),
    [
        ("<p>As an AI I cannot know. What is it?</p>", "bleed"),
        ("<p>Sure, here you go. What is it?</p>", "bleed"),
        ("<p>Could you tell me more about your business?</p>", "generic"),
        ("<p>Hello <script>x()</script> there. What is it?</p>", "markup"),
        ("<p onclick='x()'>Hello. What is it?</p>", "markup"),
        ("<p>Hello \u202e there. What is it?</p>", "markup"),
        (f"<p>{'long ' * 31}. What is it?</p>", "too_long"),
        ("no question at all", "no_question"),
    ],
)
async def test_a_fault_at_the_beginning_is_never_seen(html: str, code: str) -> None:
    """A first sentence that may not be shown fails unseen as malformed; on the last attempt a written question is."""
    ending, shown = await _attempt(_json(html), _rules())
    assert isinstance(ending, FailedUnseen)
    assert isinstance(ending.error, Malformed)
    assert f": {code};" in str(ending.error)
    assert shown == []

    ending, shown = await _attempt(_json(html), _rules(last=True))
    assert isinstance(ending, Answered)
    assert ending.answer.html.endswith("What about budget &amp; more?</p>")
    assert ending.answer.mended == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (_json(GOOD, "colour"), "decision"),
        (json.dumps({"html_response": GOOD}), "undecided"),
        (json.dumps({"html_response": GOOD, "dimension": "budget"}), "undecided"),
        (_json(GOOD, reasoning=["so"]), "schema"),
    ],
)
async def test_a_decision_that_is_not_allowed_is_never_seen(said: str, code: str) -> None:
    """An unknown, closed, late or missing dimension, or keys nobody asked for, fail before any text."""
    for hold in HOLDS:
        ending, shown = await _attempt(said, _rules(hold))
        assert isinstance(ending, FailedUnseen)
        assert f": {code};" in str(ending.error)
        assert shown == []
    ending, _ = await _attempt(said, _rules(last=True))
    assert isinstance(ending, Answered)
    expected = "budget" if code == "schema" else "team"
    assert ending.answer.html == f"<p>What about {expected} &amp; more?</p>"
    assert ending.answer.dimension == expected


@pytest.mark.parametrize(
    ("html", "visible", "code"),
    [
        ("<p>Good. And as an AI I wonder. What?</p>", "<p>Good. What about budget &amp; more?</p>", "bleed"),
        ("<p>Good.</p><p>Is there anything else?</p>", "<p>Good.</p><p>What about budget &amp; more?</p>", "generic"),
        ("<p>Good. Which one? And who? Why?</p>", "<p>Good. Which one?</p>", "stacked"),
        ("<p>Good. <em>Which one?</em> I ask gladly.</p>", "<p>Good. <em>Which one?</em></p>", "more_after"),
        ("<p>Good.</p>", "<p>Good.</p><p>What about budget &amp; more?</p>", "no_question"),
        ("<ul><li>One</li><li>Two", "<ul><li>One</li><li>Two</li></ul><p>What about budget &amp; more?</p>",
         "no_question"),
    ],
)  # fmt: skip
async def test_a_fault_further_on_is_left_out_and_the_answer_ends_on_a_question(
    html: str, visible: str, code: str
) -> None:
    """What was shown stays; what follows is replaced by the written question of the dimension, and that is noted."""
    ending, shown = await _attempt(_json(html), _rules())
    assert isinstance(ending, Answered)
    assert ending.answer.html == "".join(shown) == visible
    assert ending.answer.mended == code


@pytest.mark.parametrize(
    "said", ["Certainly! What is it?", '{"dimension": "team", "html_resp', '{"dimension": "team"}']
)
async def test_no_json_is_no_answer_but_on_the_last_attempt_a_question(said: str) -> None:
    """What is not the JSON object fails unseen; where nothing may follow, the visitor is asked the written question."""
    ending, shown = await _attempt(said, _rules())
    assert isinstance(ending, FailedUnseen)
    assert shown == []
    ending, _ = await _attempt(said, _rules(last=True))
    assert isinstance(ending, Answered)
    assert ending.answer.html == "<p>What about team &amp; more?</p>"
    assert ending.answer.mended == "not_json"


async def test_what_breaks_off_ends_on_a_question() -> None:
    """A stream that breaks after a sentence leaves it, closed by tags and a written question; unseen it falls back."""
    broken = BackendFailed("gone")
    ending, shown = await _attempt(_json(GOOD)[:60], _rules(), breaks=broken)
    assert isinstance(ending, Truncated)
    assert "".join(shown) == ending.answer.html == "<p>That adds up. "
    assert ending.closing == "What about budget &amp; more?</p>"

    ending, shown = await _attempt(_json(GOOD)[:45], _rules(), breaks=broken)
    assert (ending, shown) == (FailedUnseen(broken), [])


@pytest.mark.parametrize("tail", ["", '</p>"', " and then prose"])
async def test_what_fails_after_the_question_fails_nothing(tail: str) -> None:
    """Once the answer has ended, the visitor has all of it: neither a cut nor what follows makes it less."""
    said = _json(GOOD)
    said = said[: said.index("?") + 1] + tail
    for breaks in (None, BackendFailed("gone")):
        ending, _ = await _attempt(said, _rules(), breaks=breaks)
        assert isinstance(ending, Answered)
        assert ending.answer.html == GOOD


async def test_a_model_that_goes_on_and_on_is_left() -> None:
    """After the end of the answer a stream is read for a while, for its usage, and then closed."""
    ending, _ = await _attempt(_json(GOOD + "<p>So. </p>" * 500), _rules())
    assert isinstance(ending, Answered)
    assert ending.answer.output_tokens is None
    ending, _ = await _attempt(_json(GOOD), _rules())
    assert isinstance(ending, Answered)
    assert ending.answer.output_tokens == 2


async def test_an_agent_that_need_not_ask_is_cut_where_a_fault_begins() -> None:
    """Without a question to end on, a held sentence that may not be shown truncates what was shown before it."""
    rules = _rules(question=None)
    ending, _ = await _attempt(_json("<p>Is it on? Then it works.</p>"), rules)
    assert isinstance(ending, Answered)
    assert ending.answer.html == "<p>Is it on? Then it works.</p>"
    ending, _ = await _attempt(_json("<p>Fine. As an AI I cannot.</p>"), rules)
    assert isinstance(ending, Truncated)
    assert (ending.answer.html, ending.closing) == ("<p>Fine. ", "</p>")


_PARTS = (
    *("<p>", "</p>", "<strong>", "</strong>", "<ul>", "<li>", "</ul>", "<br>", "<a href='https://a.b/?q=1'>", "</a>"),
    *("Hello. ", "It is 3.5 e.g. so", "Which? ", "What?", " ", "As an AI ", "&amp;", "<", "é…", "Good! ", "<script>x"),
)
_HTML = st.lists(st.sampled_from(_PARTS), max_size=14).map("".join)


def _played(html: str, cuts: Sequence[int], rules: Rules) -> tuple[list[str], str | None, Guard]:
    guard, stream, shown = Guard(rules), HtmlStream(), list[str]()
    guard.dimension = "budget"
    ends = sorted({min(cut, len(html)) for cut in cuts} | {len(html)})
    try:
        at = 0
        for end in ends:
            shown.append(guard.feed(html[at:end], stream.feed(html[at:end])))
            at = end
        shown.append(guard.finish(stream.finish()))
    except Malformed as error:
        return shown, str(error), guard
    return shown, None, guard


@given(_HTML, st.lists(st.integers(0, 200), max_size=12), st.sampled_from(HOLDS), st.booleans())
@settings(deadline=None, max_examples=150, database=None)
def test_every_prefix_is_clean_and_the_whole_is_one_question(
    html: str, cuts: list[int], hold: Hold, last: bool
) -> None:
    """However HTML arrives, each shown prefix with its closing is sanitised HTML, and the end is one question."""
    shown, error, guard = _played(html, cuts, _rules(hold, last=last))
    visible = "".join(shown)
    if error is not None:
        assert not last
        assert visible == ""
        return
    assert guard.ended
    assert CLEAN.clean(visible) == visible
    words = to_text(visible)
    assert words.count("?") == 1
    assert words.endswith("?")


@given(_HTML, st.lists(st.integers(0, 200), max_size=12), st.integers(0, 12), st.sampled_from(HOLDS))
@settings(deadline=None, max_examples=150, database=None)
def test_what_breaks_off_anywhere_closes_clean(html: str, cuts: list[int], stop: int, hold: Hold) -> None:
    """Wherever a stream breaks off, what was shown and its closing are sanitised HTML."""
    rules = _rules(hold, question=None)
    guard, stream, visible, at = Guard(rules), HtmlStream(), "", 0
    try:
        for end in sorted({min(cut, len(html)) for cut in cuts})[:stop]:
            visible += guard.feed(html[at:end], stream.feed(html[at:end]))
            at = end
    except Malformed:
        pass
    whole = visible + guard.closing()
    assert CLEAN.clean(whole) == whole


CALIBRATION = Calibration(
    version=1,
    model="m",
    adapter=None,
    centre=(0.0, 0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0, 1.0),
    weights=(0.0, 2.0, 0.0, 0.0),
    bias=3.0,
    quality=Quality(rows=10, right=0.5, ece=0.1, auroc=0.9),
)


async def test_an_unsure_decision_is_never_seen() -> None:
    """Below the threshold nothing is shown and the error says so; above it the answer has its confidence."""
    gate = ConfidenceGate(CALIBRATION, 0.85)
    ending, shown = await _attempt(_json(GOOD), _rules(), gate=gate, chance=-1.2)
    assert isinstance(ending, FailedUnseen)
    assert isinstance(ending.error, LowConfidence)
    assert shown == []

    ending, _ = await _attempt(_json(GOOD), _rules(), gate=gate, chance=-0.02)
    assert isinstance(ending, Answered)
    assert ending.answer.confidence == pytest.approx(CALIBRATION.confidence((-0.02, -0.02)))


def test_only_the_deciding_tokens_count() -> None:
    """Of a reply's tokens those of the dimension's value are scored, however they are cut, and no others."""
    tokens = [('{"', -9.0), ("dimension", -9.0), ('": "', -9.0), ("bud", -1.0), ('get",', -2.0), (' "html', -9.0)]
    assert decision_tokens(tokens) == (-1.0, -2.0)
    assert decision_tokens([('{"dimension": "team", "html', -3.0)]) == (-3.0,)
    assert decision_tokens([('{"html_response": "', -3.0)]) == ()
    assert decision_tokens([]) == ()
