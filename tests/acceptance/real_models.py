"""The scripted conversations on model servers that somebody runs, and what became of each call.

    python -m tests.acceptance.real_models --frontier-url http://127.0.0.1:8000/v1 --model NAME \\
        --tuned-url http://127.0.0.1:8001 --tuned-model NAME --language en

starts a system of its own whose models are those servers, plays `scripts.yaml` and prints a line for each turn. What is
not said on the command line is what `FAIRLEAD_*` and the policy say, keys among it. The exit status is 1 if a server
refused a request, was not to be reached or spoke another dialect; how well its model answers is nobody's business here.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from cli.system import running_system
from cli.tables import headed
from infra.policy import load_policy
from schemas.completions import InvalidRequest, Unavailable
from schemas.policy import Policy
from tests.acceptance.transcripts import Spoken, play, scripts

_WIRE: Final = frozenset({InvalidRequest.code, Unavailable.code})
"""Why a call fails whatever a model writes."""
_CLOCKS: Final = ("connect", "between_tokens", "stream", "queue", "turn", "waiting")


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Whose models answer, and how long they may take."""

    model: str | None = None
    """The frontier's name at its server; the policy's names if absent."""
    tuned_model: str | None = None
    """The fine-tuned model's name at its server, without an adapter; the policy's if absent."""
    slower: float = 1.0
    """How many times longer than the policy's the clocks of a call and a turn are."""
    input_tokens: int | None = None
    """No agent's prompt may be longer; for servers with a short context."""
    max_tokens: int | None = None
    """Nor its answer."""

    def policy(self, given: Policy) -> Policy:
        """Return the policy with these models and clocks."""
        changed = given.model_dump(mode="json")
        for model in changed["models"].values():
            model["first_token"] *= self.slower
            if model["backend"] == "frontier":
                model["model"] = self.model or model["model"]
            elif model["backend"] == "discovery" and self.tuned_model:
                model |= {"model": self.tuned_model, "adapter": None}
        for agent in changed["agents"].values():
            for name, most in (("input_tokens", self.input_tokens), ("max_tokens", self.max_tokens)):
                agent[name] = min(agent[name], most or agent[name])
        for clock in _CLOCKS:
            changed["deadlines"][clock] *= self.slower
        changed["breaker"]["probe"] *= self.slower
        changed["routing"]["deadline"] = min(10, changed["routing"]["deadline"] * self.slower)
        return Policy.model_validate(changed)


def line(one: Spoken) -> str:
    """Return what is told of a turn: its agent, its end, its model calls and how each ended; no words of anybody's."""
    calls = ", then ".join(f"{call.model}: {call.error or call.state}" for call in one.calls) or "no model"
    return f"{one.language}  {one.agent:20}  {one.state:9}  {len(one.html):5} characters  {calls}"


def counts(spoken: Iterable[Spoken]) -> str:
    """Return a table of how the calls of each model ended."""
    found = Counter((call.model, call.error or call.state) for one in spoken for call in one.calls)
    rows = [(model, ended, str(count)) for (model, ended), count in sorted(found.items())]
    return headed(("model", "ended", "calls"), rows, styled=False)


def refused(spoken: Iterable[Spoken]) -> list[str]:
    """Return a sentence for each call that failed whatever the model wrote, and one if no model was asked at all."""
    calls = [call for one in spoken for call in one.calls]
    if not calls:
        return ["No model was asked: name a server with --frontier-url, or set FAIRLEAD_FRONTIER_BASE_URL."]
    found = Counter((call.model, call.error) for call in calls if call.error in _WIRE)
    return [
        f"{count} calls of {model} failed with {error}; `fairlead explain` and the log of agents say why."
        for (model, error), count in found.items()
    ]


def play_on(
    servers: Servers, environ: Mapping[str, str], *, only: Sequence[str] = (), state: Path | None = None
) -> list[Spoken]:
    """Start a system with the models that `environ` names, hold the conversations and print each turn as it ends."""
    given = environ.get("FAIRLEAD_POLICY")
    policy = servers.policy(load_policy(Path(given) if given else None))
    spoken: list[Spoken] = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "policy.yaml"
        file.write_text(yaml.safe_dump(policy.model_dump(mode="json")), encoding="utf-8")
        place = state or Path(scratch) / "state"
        with running_system(place, environ={**environ, "FAIRLEAD_POLICY": str(file)}, samples=True) as system:
            began = time.monotonic()
            for one in play(system, only=only, seconds=policy.deadlines.turn + policy.deadlines.waiting):
                spoken.append(one)
                sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {line(one)}\n")
                sys.stdout.flush()
    return spoken


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print what was seen, return the exit status."""
    options = _options().parse_args(arguments)
    addresses = {
        "FAIRLEAD_FRONTIER_BASE_URL": options.frontier_url,
        "FAIRLEAD_DISCOVERY_BASE_URL": options.tuned_url,
        "FAIRLEAD_DISCOVERY_DIALECT": options.tuned_url and options.tuned_dialect,
    }
    environ = {**os.environ, **{name: value for name, value in addresses.items() if value}}
    servers = Servers(
        model=options.model,
        tuned_model=options.tuned_model,
        slower=options.slower,
        input_tokens=options.input_tokens,
        max_tokens=options.max_tokens,
    )
    spoken = play_on(servers, environ, only=options.language, state=options.state)
    troubles = refused(spoken)
    sys.stdout.write("\n" + counts(spoken) + "".join(f"\n{trouble}\n" for trouble in troubles))
    return 1 if troubles else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.real_models", description=__doc__)
    parser.add_argument("--frontier-url", help="any server with OpenAI's API; else FAIRLEAD_FRONTIER_BASE_URL")
    parser.add_argument("--model", help="its model's name; else the policy's names")
    parser.add_argument("--tuned-url", help="the fine-tuned model's server; else FAIRLEAD_DISCOVERY_BASE_URL")
    parser.add_argument("--tuned-model", help="its model's name; else the policy's")
    parser.add_argument("--tuned-dialect", choices=("openai", "tgi"), default="openai")
    parser.add_argument("--slower", type=float, default=1.0, help="times longer clocks, for a slow machine")
    parser.add_argument("--input-tokens", type=int, help="longest prompt, for a short context")
    parser.add_argument("--max-tokens", type=int, help="longest answer, likewise")
    parser.add_argument("--language", action="append", default=[], choices=tuple(scripts()[1]))
    parser.add_argument("--state", type=Path, help="keep the system's state here, for `fairlead explain --state`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
