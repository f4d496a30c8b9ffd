"""What one answer must keep to while it is written, and what we add to it: sources, and what it may not pretend."""

import re
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Final

from pydantic import JsonValue

from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.answer_policy import AnswerPolicy
from schemas.citations import Read, cite
from schemas.completions import Malformed
from schemas.knowledge import Passage
from workers.agents.adaptive_response.answer import rephrases
from workers.agents.artefact import artefact
from workers.agents.phrases import phrases
from workers.agents.shape import problem_of
from workers.agents.written import Written
from workers.answers.closing import caveat_html, sources_html
from workers.answers.sanitise import to_text

_NOT_KNOWN: Final = frozenset({"not_found", "nothing_new"})
"""Decisions of a model, or of its shape, after which the visitor is told so in our words."""

_WORD: Final = re.compile(r"\w+")
_WORD_BEGUN: Final = re.compile(r"(?:(?<!\w)\w+)?\Z")
_TAG: Final = re.compile(r"<[^>]*>")


class Terms:
    """The terms of one attempt. What breaks them before anything is visible is a malformed answer: the fallback's turn.

    Args:
        claim: the turn.
        passages: what the model was shown, in the order of their numbers.
        passages_cut: how many it was not shown.
        policy: what is counted, and how much of it is too much.
    """

    def __init__(self, claim: Claim, *, passages: tuple[Passage, ...], passages_cut: int, policy: AnswerPolicy) -> None:
        self._claim = claim
        self._passages = passages
        self._cut = passages_cut
        self._policy = policy
        self._written = Written()
        self._leak = _Leak(claim.agent, words=policy.leak_words)

    def begin(self, fields: Mapping[str, JsonValue]) -> None:
        """Judge what was decided before the visible text.

        Raises:
            Malformed: it breaks the agent's rules.
        """
        self._written = Written(fields)
        self._judge()

    def see(self, html: str) -> None:
        """Judge more of the text, before it is shown.

        Raises:
            Malformed: it is a piece of the instructions.
        """
        if self._leak.found(html):
            raise Malformed("the model recites its instructions; see docs/agents.md, 'Injection'")

    def end(self, html: str) -> None:
        """Judge the whole text.

        Raises:
            Malformed: it breaks the agent's rules. Once something is visible the text stays nevertheless.
        """
        self._written = Written(self._written.fields, to_text(html))
        self._judge()
        if not (self._written.text or "").strip() and self._written.dimension not in _NOT_KNOWN:
            raise Malformed("the model's answer has no text, only what we would add to it")
        if self._claim.agent is Agent.ADAPTIVE_RESPONSE:
            _refuse(rephrases(self._claim, self._written, self._policy))

    def closing(self) -> str:
        """Return what we add at the end of the text: safe, whole HTML, often empty."""
        said = phrases(self._claim.brief.language)
        state = self._claim.brief.retrieved.state
        caveat = ""
        if self._written.dimension in _NOT_KNOWN:
            unread = said.not_read if state in ("late", "failed") else said.not_found
            caveat = caveat_html(said.nothing_new if self._written.dimension == "nothing_new" else unread)
        return caveat + sources_html(said.sources, self.read.cited)

    @property
    def read(self) -> Read:
        """What the turn read, and what its answer cites."""
        numbers = self._written.citations(len(self._passages))
        return Read(
            passages=tuple(passage.passage_id for passage in self._passages),
            cut=self._cut,
            cited=tuple(cite(number, self._passages[number - 1]) for number in numbers),
        )

    def _judge(self) -> None:
        _refuse(problem_of(self._claim, self._written))


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise Malformed(problem)


class _Leak:
    """Finds runs of words that stand in an agent's instructions. Examples do not count: answers may be like them."""

    def __init__(self, agent: Agent, *, words: int) -> None:
        self._runs = _instruction_runs(agent, words)
        self._last = deque[str](maxlen=words)
        self._half = ""  # what may be the beginning of a word or of a tag

    def found(self, html: str) -> bool:
        """Tell whether the text has one, with this piece of it."""
        text = self._half + html
        begun = text.rfind("<")
        head, tag = (text[:begun], text[begun:]) if begun > text.rfind(">") else (text, "")
        if "<" in head:
            head = _TAG.sub(" ", head)
        unended = None if tag else _WORD_BEGUN.search(head)
        word = "" if unended is None else unended[0]
        self._half = word + tag
        for ended in _WORD.findall(head[: len(head) - len(word)]):
            folded = ended.casefold()
            self._last.append(folded)
            if folded in self._runs and tuple(self._last) in self._runs[folded]:
                return True
        return False


@cache
def _instruction_runs(agent: Agent, words: int) -> Mapping[str, frozenset[tuple[str, ...]]]:
    """Return the runs by their last word, so that most words need no more than one look."""
    told = artefact(agent)
    found = [word.casefold() for word in _WORD.findall(f"{told.instructions}\n{told.rules}")]
    runs: dict[str, set[tuple[str, ...]]] = {}
    for at in range(words, len(found) + 1):
        runs.setdefault(found[at - 1], set()).add(tuple(found[at - words : at]))
    return {last: frozenset(ending) for last, ending in runs.items()}
