"""Kill, freeze and cut a whole system under traffic, in rounds, and look for what must never be found.

python -m tests.chaos.run --turns 10000 --kills 300 --freezes 150 --rounds 6 --seed 7
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.apache_kafka import check_installed
from infra.embedded.errors import JarsMissingError, JavaMissingError
from tests.chaos.checker import Kind
from tests.chaos.faults import deck, others
from tests.chaos.report import ALL, Row, keep, merged, table
from tests.chaos.servers import Broker, in_own_mounts, why_no_disks
from tests.chaos.trial import LOGS, Outcome, broken_system, chaos, scratch


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round's share of the whole."""

    broker: Broker
    turns: int
    kills: int
    freezes: int
    seed: int


def rounds(*, turns: int, kills: int, freezes: int, count: int, brokers: Sequence[Broker], seed: int) -> list[Round]:
    """Shares that add up to at least the whole, the brokers taking turns."""
    return [
        Round(
            broker=brokers[n % len(brokers)],
            turns=-(-turns // count),
            kills=-(-kills // count),
            freezes=-(-freezes // count),
            seed=seed + n,
        )
        for n in range(count)
    ]


def run(share: Round, *, seconds: float, users: int, disks: bool) -> Outcome:
    """Play one round on a system of its own."""
    log = LOGS / f"chaos-{share.seed}.log"
    with scratch() as state, broken_system(state, log=log, broker=share.broker, disks=disks) as broken:
        rest = others(apache=share.broker == "apache", disks=broken.servers.disks)
        faults = deck(random.Random(share.seed), kills=share.kills, freezes=share.freezes, rest=rest)
        return asyncio.run(
            chaos(broken, turns=share.turns, seconds=seconds, faults=faults, seed=share.seed, users=users)
        )


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if anything was found that must not be."""
    asked = _parser().parse_args(words)
    no_disks = why_no_disks()
    if no_disks and words is None:
        in_own_mounts([sys.executable, "-m", "tests.chaos.run", *sys.argv[1:], "--seed", str(asked.seed)])
    _say(no_disks)
    shares = rounds(
        turns=asked.turns,
        kills=asked.kills,
        freezes=asked.freezes,
        count=asked.rounds,
        brokers=_brokers(asked.broker),
        seed=asked.seed,
    )
    outcomes: list[Outcome] = []
    for number, share in enumerate(shares, 1):
        _say(f"\nround {number} of {len(shares)}, seed {share.seed}, {share.broker} broker")
        seconds = asked.seconds or share.turns * 0.5 + 60
        outcomes.append(run(share, seconds=seconds, users=asked.users, disks=no_disks is None))
        _say(str(outcomes[-1]))
    total = merged([outcome.rows for outcome in outcomes])
    if len(outcomes) > 1:
        _say(f"\nall rounds\n{table(total)}")
    if asked.json:
        keep(asked.json, figures(shares, outcomes, total))
    return 1 if any(outcome.violations or outcome.surprises for outcome in outcomes) else 0


def figures(shares: Sequence[Round], outcomes: Sequence[Outcome], total: Sequence[Row]) -> dict[str, object]:
    """What a run came to, small enough to keep."""
    everything = next(row for row in total if row.fault == ALL)
    states = Counter(turn.state for outcome in outcomes for turn in outcome.evidence.turns)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return {
        "seed": shares[0].seed,
        "rounds": [{"broker": share.broker, "seed": share.seed} for share in shares],
        "turns": everything.turns,
        "turns_a_second": round(everything.turns / max(seconds, 1.0), 2),
        "kills": sum(row.injected for row in total if row.fault.startswith("kill ") and "restart" not in row.fault),
        "freezes": sum(row.injected for row in total if row.fault.startswith("freeze ")),
        "states": dict(states.most_common()),
        "found": {kind.value: everything.wrong[kind] for kind in Kind},
        "slowest_recovery_seconds": round(everything.slowest, 1),
        "faults": {row.fault: {"injected": row.injected, "turns": row.turns} for row in total if row.fault != ALL},
        "not_injected": [what for outcome in outcomes for what in outcome.failed],
        "users_met": dict(sum((outcome.met for outcome in outcomes), Counter[str]()).most_common()),
    }


def _brokers(asked: str) -> list[Broker]:
    if asked == "memory":
        return ["memory"]
    try:
        check_installed()
    except (JavaMissingError, JarsMissingError) as missing:
        if asked == "apache":
            raise
        _say(f"only the in-memory broker: {missing}")
        return ["memory"]
    return ["apache"] if asked == "apache" else ["memory", "apache"]


def _say(words: str | None) -> None:
    if words:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.run", description=__doc__)
    parser.add_argument("--turns", type=int, default=800, help="in all rounds together")
    parser.add_argument("--kills", type=int, default=24, help="of processes, in all rounds together")
    parser.add_argument("--freezes", type=int, default=12, help="longer than the lease, in all rounds together")
    parser.add_argument("--rounds", type=int, default=1, help="each on a system of its own")
    parser.add_argument("--broker", choices=("memory", "apache", "both"), default="both", help="both take turns")
    parser.add_argument("--users", type=int, default=64, help="who talk at once")
    parser.add_argument("--seconds", type=float, help="how long users talk at most in a round")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
