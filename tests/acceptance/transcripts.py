"""Scripted conversations in five languages through all agents, and the page that shows them.

`python -m tests.acceptance.transcripts` plays them on a system of its own, without any model, and writes
`docs/transcripts.md`.
"""

import os
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel

from cli.http import request
from cli.system import RunningSystem, running_system
from cli.turns import Attempt
from workers.answers.sanitise import to_text

PAGE: Final = Path(__file__).parents[2] / "docs" / "transcripts.md"
_SCRIPTS: Final = Path(__file__).with_name("scripts.yaml")
_NAMES: Final = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian"}
_ASSET: Final = re.compile(r"/v1/assets/[A-Za-z0-9_-]{32}")

_HEAD: Final = """# Transcripts

One conversation in each of five languages, played on a running system without any model (`fairlead up --offline`): the
classifier routes, the researcher searches the sample knowledge base, and the agents say what rules and retrieval can,
labelled "(offline)". `tests/acceptance/test_transcripts.py` plays them in every build and compares them with this page;
`python -m tests.acceptance.transcripts` writes it anew. With models the same routes lead to the same agents, and the
words are the models': `tests/integration/agents/test_scripts.py` plays them on simulated model servers.
"""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One turn: what was said, who answered and why, what is cited."""

    language: str
    asked: str
    agent: str
    state: str
    why: str
    found: str
    """State of the retrieval."""
    seen_language: str
    html: str
    sources: tuple[str, ...]
    calls: tuple[Attempt, ...]
    """Of models; empty where none is configured."""

    @property
    def assets(self) -> list[str]:
        """Addresses of the files that the answer links to."""
        return _ASSET.findall(self.html)


def scripts() -> tuple[list[str], dict[str, list[str]]]:
    """Return the agents in the order of the lines, and the lines of each language."""
    read = yaml.safe_load(_SCRIPTS.read_text(encoding="utf-8"))
    return read["agents"], read["languages"]


def play(system: RunningSystem, *, only: Collection[str] = (), seconds: float = 60) -> Iterator[Spoken]:
    """Hold the conversations, a line after the answer to the one before.

    Args:
        system: answers.
        only: the languages; all where none is named.
        seconds: without a sign of a turn, after which nobody waits for it any more.
    """
    for language, lines in scripts()[1].items():
        if not only or language in only:
            for line in lines:
                yield _said(system, language, line, seconds=seconds)


def page(spoken: list[Spoken]) -> str:
    """Return the transcripts as Markdown."""
    parts = [_HEAD]
    for language, name in _NAMES.items():
        parts.append(f"## {name}\n")
        parts += [_shown(one) for one in spoken if one.language == language]
    return "\n".join(parts)


def _shown(one: Spoken) -> str:
    said = to_text(_ASSET.sub("/v1/assets/…", one.html)).strip().replace("\n", "\n> ")
    said = re.sub(r"(?m)^> $", ">", f"> {said}")
    sources = f"\n\nSources: {', '.join(one.sources)}." if one.sources else ""
    return f"**Visitor:** {one.asked}\n\n*{one.agent}* ({one.why}; knowledge base: {one.found})\n\n{said}{sources}\n"


class _Accepted(BaseModel):
    turn_id: str
    events_url: str


class _Answer(BaseModel):
    html: str


class _Plan(BaseModel):
    why: str


class _Retrieved(BaseModel):
    state: str


class _Findings(BaseModel):
    language: str
    retrieved: _Retrieved


class _Source(BaseModel):
    name: str


class _Turn(BaseModel):
    state: str
    agent: str
    answer: _Answer
    plan: _Plan
    findings: _Findings
    sources: list[_Source]
    attempts: list[Attempt]


def _said(system: RunningSystem, language: str, line: str, *, seconds: float) -> Spoken:
    found = system.endpoints
    url = f"{found.gateway}/v1/conversations/script-{language}/turns"
    posted = request(url, method="POST", body={"text": line}, key=found.api_key)
    accepted = _Accepted.model_validate_json(posted)
    request(accepted.events_url, key=found.api_key, seconds=seconds)  # to the end of the stream
    turn = _Turn.model_validate_json(request(f"{found.gateway}/v1/turns/{accepted.turn_id}", key=found.operator_key))
    return Spoken(
        language=language,
        asked=line,
        agent=turn.agent,
        state=turn.state,
        why=turn.plan.why,
        found=turn.findings.retrieved.state,
        seen_language=turn.findings.language,
        html=turn.answer.html,
        sources=tuple(source.name for source in turn.sources),
        calls=tuple(turn.attempts),
    )


def main() -> None:
    """Write the page."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "OPENAI_"))}
    with (
        tempfile.TemporaryDirectory() as state,
        running_system(Path(state) / "state", environ=environ, samples=True, offline=True) as system,
    ):
        PAGE.write_text(page(list(play(system))), encoding="utf-8")


if __name__ == "__main__":
    main()
