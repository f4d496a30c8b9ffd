"""One trial: a whole system under traffic, broken in many ways, and judged by what is left."""

import asyncio
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from cli.supervisor import Backoff
from cli.system import RunningSystem, running_system
from infra.policy import load_policy
from infra.postgres.statements import LedgerUnavailable
from tests.chaos.checker import Violation, violations
from tests.chaos.evidence import Evidence, gathered, unfinished
from tests.chaos.faults import Fault, Injected
from tests.chaos.report import Row, rows, table
from tests.chaos.saboteur import ModelTrouble, Saboteur
from tests.chaos.servers import Broker, Servers
from tests.chaos.users import Users

LEASE: Final = 2.0
SETTLE_SECONDS: Final = 90.0
"""How long turns may take to end, and results to be published, once nothing fails any more."""

LOGS: Final = Path(__file__).parents[2] / ".cache" / "test-logs"

DEADLINES: Final = {
    "connect": 1.0,
    "between_tokens": 1.5,
    "stream": 15.0,
    "queue": 4.0,
    "turn": 20.0,
    "waiting": 90.0,
    "lease": LEASE,
}
_RESTARTS: Final = Backoff(first=0.2, longest=1.0, limit=100_000)
_CACHE: Final = Path(__file__).parents[2] / ".cache"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    evidence: Evidence
    injected: Sequence[Injected]
    failed: Sequence[str]
    """Faults that could not be injected."""
    met: Counter[str]
    violations: Sequence[Violation]
    seconds: float
    """How long users talked."""

    @property
    def surprises(self) -> list[str]:
        """What no user should have met."""
        return surprises(self.met)

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return rows(self.evidence, self.injected, self.violations)

    def __str__(self) -> str:
        states = Counter(turn.state for turn in self.evidence.turns)
        taken = len(self.evidence.promises)
        lines = [table(self.rows), ""]
        lines.append(f"{taken} turns in {self.seconds:.0f} s, {taken / max(self.seconds, 1):.1f} a second")
        lines.append("turns ended: " + ", ".join(f"{state} {count}" for state, count in states.most_common()))
        lines.append("users met: " + (", ".join(f"{what} {n}" for what, n in self.met.most_common()) or "nothing"))
        lines += [f"not injected: {what}" for what in self.failed]
        for violation in self.violations:
            lines += ["", f"{violation.kind}: turn {violation.turn} {violation.why}"]
            lines += [f"  {step}" for step in self.evidence.history(violation.turn)]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A system that loses patience soon, the servers it depends on, and what its processes are told."""

    system: RunningSystem
    servers: Servers
    environ: dict[str, str]


def surprises(met: Counter[str]) -> list[str]:
    """What no user should have met: refusals that are not "busy" or "away", and messages never taken.

    A gateway that was started anew does not know a turn that is accepted and not recorded yet: 404 for that long.
    """
    expected = {f"{what} answered 503" for what in ("message", "stream")} | {"stream answered 404"}
    return sorted(met.keys() - expected - {"message not answered", "stream broken", "gateway away"})


@contextmanager
def scratch() -> Generator[Path]:
    """A directory for a system, gone with the context."""
    (_CACHE / "tmp").mkdir(parents=True, exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="chaos-", dir=_CACHE / "tmp"))
    try:
        yield state
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def broken_system(
    state: Path,
    *,
    log: Path,
    broker: Broker = "memory",
    disks: bool = False,
    deadlines: Mapping[str, float] = DEADLINES,
    first_token: float = 1.0,
) -> Generator[Broken]:
    """Run a system that soon loses patience, unless told otherwise, and lets users send as much as they like."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "OPENAI_"))}
    # Processes are started hundreds of times: they shall not compile everything anew each time.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    environ |= {
        "PYTHONPYCACHEPREFIX": str(_CACHE / "pyc"),
        "FAIRLEAD_POLICY": str(_policy(state, deadlines, first_token)),
        "FAIRLEAD_RATE_LIMIT_PER_MINUTE": "1000000",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with Servers(state / "servers", broker=broker, disks=disks) as servers:
        environ |= servers.environment
        with running_system(state / "system", environ=environ, log=log, backoff=_RESTARTS) as system:
            yield Broken(system=system, servers=servers, environ=environ)


def _policy(state: Path, deadlines: Mapping[str, float], first_token: float) -> Path:
    policy = load_policy().model_dump(mode="json")
    policy["deadlines"] |= deadlines
    for model in policy["models"].values():
        model["first_token"] = first_token
    path = state / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return path


async def chaos(
    broken: Broken,
    *,
    turns: int,
    seconds: float,
    faults: Sequence[Fault],
    seed: int,
    users: int = 8,
    pause: float = 0.0,
    share: float = 0.5,
) -> Outcome:
    """Let users talk while things break, wait until all has settled, and judge what is left.

    Args:
        broken: what to break; it must have been started for this.
        turns: how many to have accepted at most.
        seconds: how long to talk at most.
        faults: what to inject, in this order.
        seed: of every choice made here.
        users: how many talk at once.
        pause: seconds a user rests after each answer, on average.
        share: how often, of each quarter of a second, the next model call is made to fail.
    """
    system, found = broken.system, broken.system.endpoints
    assert found.simulators is not None
    models = ModelTrouble(system, seed=seed + 1)
    async with Users(gateway=found.gateway, key=found.api_key, seed=seed) as crowd:
        saboteur = Saboteur(
            system,
            broken.servers,
            seed=seed,
            lease=LEASE,
            environ=broken.environ,
            turns=lambda: [promise.turn for promise in crowd.promises],
        )
        disturbing = asyncio.create_task(models.disturb(share), name="models")
        breaking = asyncio.create_task(saboteur.work(faults), name="saboteur")
        began = time.monotonic()
        try:
            await crowd.talk(turns=turns, seconds=seconds, users=users, pause=pause)
            took = time.monotonic() - began
            await breaking
        finally:
            disturbing.cancel()
            breaking.cancel()
            await asyncio.gather(disturbing, breaking, return_exceptions=True)
        models.calm()
        await settled(broken.servers.database, [promise.turn for promise in crowd.promises])
        await crowd.read_all()
        evidence = await gathered(broken.servers.database, found.simulators, crowd.promises, crowd.transcripts)
    trouble = system.trouble(seconds=0)
    assert trouble is None, trouble
    return Outcome(
        evidence=evidence,
        injected=saboteur.injected,
        failed=saboteur.failed,
        met=crowd.met,
        violations=violations(evidence),
        seconds=took,
    )


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
