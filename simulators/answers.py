"""The tokens a request is answered with."""

import functools
import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from simulators.dialogues import Reply, Voice, reply_to, stable_hash
from simulators.prompts import Prompt
from simulators.shapes import Schema, fill

Finish: TypeAlias = Literal["stop", "length"]

_PIECE = re.compile(r" ?\w{1,5}|[^\w\s]{1,3}|\s")
_MARK = "\ue000"
_DECISION_TOKENS = 16
_FILLER = (
    "Each scan tells when a case was moved and the time between two scans tells what it waited for. "
    "Seen over a week, the same aisle waits at the same hour, and a small change of order removes it. "
)
_PROSE = "Certainly, here is what I think about it in plain words. The form you asked for does not suit me today."


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model will say: its visible tokens in order, and why it stops after them."""

    tokens: tuple[str, ...]
    finish: Finish
    prompt_tokens: int
    confidence: float | None = None

    @property
    def text(self) -> str:
        """All visible tokens joined."""
        return "".join(self.tokens)

    @property
    def generated(self) -> int:
        """Tokens the model generated, the end mark included where it came to it."""
        return len(self.tokens) + (self.finish == "stop")

    def logprob(self, index: int) -> float:
        """The log probability of the visible token at `index`: always the same, of `confidence` if that is given.

        Otherwise the model is nearly sure of the form and the decision, which come first, and less so later.
        """
        if self.confidence is not None:
            return min(-0.0001, round(math.log(self.confidence), 4))
        chance = (stable_hash(self.tokens[index]) + 7919 * index) % 4999 + 1
        return -chance / (250_000 if index < _DECISION_TOKENS else 10_000)

    def ranked(self, index: int, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest tokens at `index` with their log probabilities; the chosen one leads."""
        best = self.logprob(index)
        others = ((f" other{rank}", round(best - 2 - rank, 4)) for rank in range(1, count))
        return [(self.tokens[index], best), *others][:count]

    def limited(self, most: int | None) -> "Answer":
        """The same answer cut to `most` tokens; a model that needs no more ends by itself."""
        if most is None or len(self.tokens) < most:
            return self
        return replace(self, tokens=self.tokens[:most], finish="length")

    def malformed(self, after: int) -> "Answer":
        """The first `after` tokens as they are, then prose that closes nothing."""
        return replace(self, tokens=(*self.tokens[:after], *tokenise(_PROSE)), finish="stop")

    def saying(self, words: str) -> "Answer":
        """The answer of a model that obeys somebody else: `words` are its output, or the text in it."""
        whole = words
        if not words.startswith("{"):
            with suppress(ValueError, TypeError):
                whole = json.dumps({**json.loads(self.text), "html_response": words}, ensure_ascii=False)
        return replace(self, tokens=tuple(tokenise(whole)), finish="stop")


def tokenise(text: str) -> list[str]:
    """Split into tokens of 1 to 6 characters that join to `text` again."""
    return _PIECE.findall(text)


def token_id(text: str) -> int:
    """A number for the token, the same everywhere."""
    return 1000 + stable_hash(text) % 140_000


def compose(prompt: Prompt, *, voice: Voice, schema: Schema | None, length: int | None) -> Answer:
    """The answer to `prompt`: JSON of `schema`, or plain text without one; `length` tokens long if given.

    An answer is never shorter than its JSON without any text in it.
    """
    tokens = _tokens(prompt.question, voice, _frozen(schema), length)
    return Answer(tokens=tokens, finish="stop", prompt_tokens=prompt.tokens)


def fitting(pattern: str, prompt: Prompt, *, voice: Voice) -> Answer | None:
    """A text that matches the regular expression `pattern`, or None if the simulator knows none."""
    reply = reply_to(prompt.question, voice)
    candidates = [
        *re.split(r"[|()]", pattern),
        reply.dimension,
        reply.agent,
        reply.plain,
        reply.html,
        "yes",
        "no",
        "0.9",
        "1",
        "",
    ]
    try:
        found = next((text for text in candidates if re.fullmatch(pattern, text)), None)
    except re.error:
        return None
    return None if found is None else Answer(tuple(tokenise(found)), "stop", prompt.tokens)


def _frozen(schema: Schema | None) -> str | None:
    return None if schema is None else json.dumps(schema)


@functools.lru_cache(maxsize=512)
def _tokens(question: str, voice: Voice, schema: str | None, length: int | None) -> tuple[str, ...]:
    reply = reply_to(question, voice)
    if length is None:
        return tuple(tokenise(_written(reply, schema)))
    marked = reply.model_copy(update={"html": f"<p>{_MARK}</p>"})
    before, _, after = _written(marked, schema).partition(_MARK)
    head, tail = tokenise(before), tokenise(after)
    return (*head, *_filler(length - len(head) - len(tail)), *tail)


def _written(reply: Reply, schema: str | None) -> str:
    if schema is None:
        return reply.plain
    escaped = stable_hash(f"escaped {reply.question}") % 3 == 0 and _MARK not in reply.html
    return json.dumps(fill(json.loads(schema), reply), ensure_ascii=escaped)


def _filler(count: int) -> list[str]:
    sentence = tokenise(_FILLER)
    return (sentence * (max(0, count) // len(sentence) + 1))[: max(0, count)]
