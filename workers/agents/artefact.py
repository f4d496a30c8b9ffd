"""A prompt as an artefact: read from its agent's folder, with a version that changes whenever a word of it does."""

import hashlib
from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field

from schemas.agents import ANSWERING, Agent


class Example(BaseModel):
    """One boundary example: what was asked, an answer, whether it is a good one, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: str
    answer: str
    good: bool
    why: str


class Artefact(BaseModel):
    """What one agent is told, apart from the conversation. Visitors' words never become part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    instructions: str
    examples: tuple[Example, ...] = ()
    reminder: str = ""
    """Said again after the input: small models forget what stood far above it."""
    digest: str = ""
    """Of the file; filled in on reading."""

    @property
    def name(self) -> str:
        """Return the version as the ledger, traces and dead letters keep it."""
        return f"{self.version}-{self.digest}"

    @property
    def system(self) -> str:
        """Return the system message: the same for every turn of the agent."""
        examples = "\n\n".join(_told(example) for example in self.examples)
        return "\n\n".join(part for part in (self.instructions, examples) if part)


def _told(example: Example) -> str:
    verdict = "Right" if example.good else "Wrong"
    return f"Example. Asked: {example.asked}\n{verdict}: {example.answer}\nWhy: {example.why}"


@cache
def artefact(agent: Agent) -> Artefact:
    """Return an agent's prompt.

    Raises:
        ValidationError: the file does not fit.
    """
    raw = resources.files(f"workers.agents.{agent}").joinpath("prompt.yaml").read_bytes()
    read = Artefact.model_validate(yaml.safe_load(raw))
    return read.model_copy(
        update={"instructions": read.instructions.strip(), "digest": hashlib.sha256(raw).hexdigest()[:12]}
    )


def prompt_versions() -> dict[Agent, str]:
    """Return the version of each answering agent's prompt."""
    return {agent: artefact(agent).name for agent in ANSWERING}
