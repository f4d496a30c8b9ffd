"""The frontier model as router: one question a turn, and the visitor's words only as data."""

import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

from infra.postgres.inbox import Prepared
from schemas.briefs import BuyingSignal, Risk
from schemas.completions import Message, ProviderError
from workers.answers.sanitise import to_text
from workers.orchestrator.decision import NAME, SCHEMA, Decision, read
from workers.orchestrator.finding import MAX_READ, Finding, NoFinding
from workers.orchestrator.rules import RuleRouter
from workers.providers.structured import Question, Structured

MAX_TOKENS: Final = 400
_EARLIER: Final = 6
"""Past turns that are shown."""
_QUOTED: Final = 4
"""Words in a row that are no coincidence."""
_MOST_EARLIER: Final = 600
"""Characters of each earlier message that are shown."""


class Instructions(BaseModel):
    """What the router is told, apart from the conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    instructions: str


@cache
def instructions() -> tuple[str, str]:
    """Return the instructions, and their version as the ledger keeps it.

    Raises:
        ValidationError: the file does not fit.
    """
    raw = resources.files("workers.orchestrator").joinpath("prompt.yaml").read_bytes()
    told = Instructions.model_validate(yaml.safe_load(raw))
    return told.instructions.strip(), f"{told.version}-{hashlib.sha256(raw).hexdigest()[:12]}"


class FrontierRouter:
    """Asks the frontier; what the deterministic checks find beside it, it cannot argue away."""

    def __init__(self, rules: RuleRouter, client: Structured, *, model: str, connect: float) -> None:
        """Ask `model`, by its name at the server, connecting within `connect` seconds."""
        self._rules = rules
        self._client = client
        self._model = model
        self._connect = connect
        self._told, version = instructions()
        self.name = f"frontier-{version}/{model}"[:120]

    async def find(self, turn: Prepared, *, within: float) -> Finding:
        """Return the frontier's decision.

        Raises:
            NoFinding: it failed, came too late, or wrote something else.
        """
        try:
            written = await self._client.ask(self._question(turn, within))
            return self._finding(read(written), turn)
        except ProviderError as error:
            raise NoFinding.of(error, router=self.name) from error

    def _question(self, turn: Prepared, within: float) -> Question:
        return Question(
            turn_id=turn.turn_id,
            model=self._model,
            messages=(Message("system", self._told), Message("user", as_data(turn))),
            name=NAME,
            json_schema=SCHEMA,
            max_tokens=MAX_TOKENS,
            connect=min(self._connect, within),
            total=within,
        )

    def _finding(self, decision: Decision, turn: Prepared) -> Finding:
        """Join what the model decided with what the checks found; of two risks the checks' counts."""
        checked = self._rules.judge(turn)
        known = {past.seq for past in turn.past if past.shown_html}
        told = decision.repeat_of if decision.repeat_of in known else None
        return Finding(
            agent=decision.agent,
            why=own_words(decision.reason, turn, 200)
            or "a reason that is not kept, for it is none or quotes the visitor",
            intent=own_words(decision.intent, turn, 64),
            language=decision.language if re.fullmatch(r"[a-z]{2}", decision.language) else None,
            confidence=decision.confidence,
            router=self.name,
            phase=decision.phase,
            signals=_signals(decision, checked, turn),
            repeats=told if told is not None else checked.repeats,
            risk=checked.risk if checked.risk is not Risk.NONE else decision.risk,
            problem=checked.problem,
        )


def as_data(turn: Prepared) -> str:
    """Return conversation and message as one JSON object: no words in it can end the string they stand in."""
    earlier: list[dict[str, object]] = []
    for past in turn.past[-_EARLIER:]:
        earlier.append({"turn": past.seq, "from": "visitor", "text": past.asked[:_MOST_EARLIER]})
        if past.shown_html:
            earlier.append({"turn": past.seq, "from": "agent", "text": to_text(past.shown_html)[:_MOST_EARLIER]})
    if not turn.past:
        earlier = [
            {"turn": None, "from": "visitor" if role == "user" else "agent", "text": text[:_MOST_EARLIER]}
            for role, text in turn.brought[-2 * _EARLIER :]
        ]
    return json.dumps({"conversation": earlier, "message": turn.text[:MAX_READ]}, ensure_ascii=False)


def _signals(decision: Decision, checked: Finding, turn: Prepared) -> tuple[BuyingSignal, ...]:
    """Return each kind once. A quote that the visitor did not write is not kept."""
    text = " ".join(turn.text.split())
    found = {signal.kind: signal for signal in checked.signals}
    for signal in decision.buying_signals:
        quote = _line(signal.quote, 200)
        if signal.kind not in found:
            found[signal.kind] = BuyingSignal(kind=signal.kind, quote=quote if quote in text else "")
    return tuple(found.values())


def own_words(text: str, turn: Prepared, most: int) -> str:
    """Return what the model says in its own words; nothing if it quotes the message or holds what may be personal."""
    line = _line(text, most)
    words, theirs = (re.findall(r"\w+", one.lower()) for one in (line, turn.text))
    runs = {tuple(theirs[at : at + _QUOTED]) for at in range(len(theirs) - _QUOTED + 1)}
    quoted = any(tuple(words[at : at + _QUOTED]) in runs for at in range(len(words) - _QUOTED + 1))
    return "" if quoted or re.search(r"@|\d{3}", line) else line


def _line(text: str, most: int) -> str:
    """Return text as one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]
