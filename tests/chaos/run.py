"""Kill, freeze and cut a whole system under traffic, and look for what must never be found.

python -m tests.chaos.run --turns 500 --seed 7
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from cli.supervisor import Backoff
from cli.system import RunningSystem, running_system
from infra.embedded.apache_kafka import ApacheKafka
from infra.policy import load_policy
from infra.postgres.statements import LedgerUnavailable
from tests.chaos.checker import Violation, violations
from tests.chaos.evidence import Evidence, gathered, unfinished
from tests.chaos.faults import Injected, Saboteur
from tests.chaos.report import rows, table
from tests.chaos.users import Users

LEASE: Final = 2.0
SETTLE_SECONDS: Final = 60.0
"""How long turns may take to end, and results to be published, once nothing fails any more."""

_DEADLINES: Final = {
    "connect": 1.0,
    "between_tokens": 1.5,
    "stream": 15.0,
    "queue": 4.0,
    "turn": 20.0,
    "waiting": 90.0,
    "lease": LEASE,
}
_RESTARTS: Final = Backoff(first=0.2, longest=1.0, limit=10_000)
_STATES: Final = Path(__file__).parents[2] / ".cache" / "tmp"
LOGS: Final = Path(__file__).parents[2] / ".cache" / "test-logs"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to."""

    evidence: Evidence
    injected: Sequence[Injected]
    met: Counter[str]
    violations: Sequence[Violation]

    @property
    def surprises(self) -> list[str]:
        """What no user should have met."""
        return surprises(self.met)

    def __str__(self) -> str:
        states = Counter(turn.state for turn in self.evidence.turns)
        lines = [table(rows(self.evidence, self.injected), self.violations), ""]
        lines.append("turns ended: " + ", ".join(f"{state} {count}" for state, count in states.most_common()))
        lines.append("users met: " + (", ".join(f"{what} {n}" for what, n in self.met.most_common()) or "nothing"))
        for violation in self.violations:
            lines += ["", f"{violation.kind}: turn {violation.turn} {violation.why}"]
            lines += [f"  {step}" for step in self.evidence.history(violation.turn)]
        return "\n".join(lines)


def surprises(met: Counter[str]) -> list[str]:
    """What no user should have met: refusals that are not "busy" or "away", and messages never taken."""
    expected = {"message not answered", "stream broken", "message answered 503", "stream answered 503"}
    return sorted(met.keys() - expected)


@contextmanager
def scratch() -> Generator[Path]:
    """A directory for a system, gone with the context."""
    _STATES.mkdir(parents=True, exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="chaos-", dir=_STATES))
    try:
        yield state
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def broken_system(state: Path, *, log: Path, kafka: ApacheKafka | None = None) -> Generator[RunningSystem]:
    """Run a system that loses patience soon: leases of two seconds, no limit on how much users may send."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "OPENAI_"))}
    environ |= {"FAIRLEAD_POLICY": str(_policy(state)), "FAIRLEAD_RATE_LIMIT_PER_MINUTE": "100000"}
    if kafka is not None:
        environ["FAIRLEAD_KAFKA"] = kafka.address
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with running_system(state / "system", environ=environ, log=log, backoff=_RESTARTS) as system:
        yield system


def _policy(state: Path) -> Path:
    policy = load_policy().model_dump(mode="json")
    policy["deadlines"] = _DEADLINES
    for model in policy["models"].values():
        model["first_token"] = 1.0
    path = state / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return path


async def chaos(
    system: RunningSystem,
    *,
    turns: int,
    seconds: float,
    faults: int,
    seed: int,
    users: int = 8,
    share: float = 0.5,
    kafka: ApacheKafka | None = None,
) -> Outcome:
    """Let users talk while things break, wait until all has settled, and judge what is left.

    Args:
        system: what to break; it must have been started for this.
        turns: how many to have accepted at most.
        seconds: how long to talk at most.
        faults: how many processes and servers to kill or freeze.
        seed: of every choice made here.
        users: how many talk at once.
        share: how often, of each quarter of a second, the next model call is made to fail.
        kafka: the broker, if it may be killed.
    """
    found = system.endpoints
    assert found.simulators is not None
    saboteur = Saboteur(system, seed=seed, lease=LEASE, kafka=kafka)
    async with Users(gateway=found.gateway, key=found.api_key, seed=seed) as crowd:
        disturbing = asyncio.create_task(saboteur.disturb_models(share), name="models")
        breaking = asyncio.create_task(saboteur.work(faults), name="saboteur")
        try:
            pause = max(0.0, seconds * users / turns - 2.5)
            await crowd.talk(turns=turns, seconds=seconds, users=users, pause=pause)
            await breaking
        finally:
            disturbing.cancel()
            breaking.cancel()
            await asyncio.gather(disturbing, breaking, return_exceptions=True)
        saboteur.calm_models()
        await settled(found.database, [promise.turn for promise in crowd.promises])
        await crowd.read_all()
        evidence = await gathered(found.database, found.simulators, crowd.promises, crowd.transcripts)
    trouble = system.trouble(seconds=0)
    assert trouble is None, trouble
    return Outcome(evidence=evidence, injected=saboteur.injected, met=crowd.met, violations=violations(evidence))


async def settled(database: str, turns: Sequence[str]) -> None:
    """Wait until every turn has ended and every result is published, or time is up: the checker says what is not."""
    give_up = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < give_up:
        try:
            if not await unfinished(database, turns):
                return
        except (LedgerUnavailable, OSError):
            pass
        await asyncio.sleep(0.5)


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if anything was found that must not be."""
    asked = _parser().parse_args(words)
    seconds = asked.seconds or asked.turns * 0.4
    faults = max(1, int(seconds / 4.2)) if asked.faults is None else asked.faults
    sys.stdout.write(f"seed {asked.seed}: {asked.turns} turns, {faults} faults, at most {seconds:.0f} s\n")
    sys.stdout.flush()
    log = LOGS / f"chaos-{asked.seed}.log"
    with (
        scratch() as state,
        _broker(asked.broker, state) as kafka,
        broken_system(state, log=log, kafka=kafka) as system,
    ):
        outcome = asyncio.run(
            chaos(system, turns=asked.turns, seconds=seconds, faults=faults, seed=asked.seed, kafka=kafka)
        )
    sys.stdout.write(f"{outcome}\n")
    return 1 if outcome.violations or outcome.surprises else 0


@contextmanager
def _broker(kind: str, state: Path) -> Generator[ApacheKafka | None]:
    if kind == "memory":
        yield None
        return
    server = ApacheKafka(state=state / "kafka")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.run", description=__doc__)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--seconds", type=float, help="how long users talk at most; 0.4 a turn if absent")
    parser.add_argument("--faults", type=int, help="kills, freezes and restarts; one in 4.2 s if absent")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--broker", choices=("memory", "apache"), default="memory")
    return parser


if __name__ == "__main__":
    sys.exit(main())
