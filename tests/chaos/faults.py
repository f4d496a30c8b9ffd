"""What can go wrong, dealt from one seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final, Literal

from cli.processes import ORCHESTRATOR, product
from cli.simulated import Fault as ModelFault
from tests.chaos.links import AILMENTS, Ailment
from tests.chaos.servers import KAFKA, POSTGRES, REDIS

Deed = Ailment | Literal["kill", "freeze", "restart", "fill", "resend", "rehint", "replay", "rebalance"]
Fault = tuple[Deed, str]

MODEL_FAULTS: Final[tuple[ModelFault, ...]] = ("status", "event", "cut", "close", "hang", "malformed")

TURNS: Final = "turns"
"""What messages are about when they come again, in another order, or all from the first."""

_WORDS: Final[dict[Deed, str]] = {
    "restart": "kill and restart {}",
    "fill": "full disk of {}",
    "delay": "slow link to {}",
    "cut": "cut link to {}",
    "half-open": "half-open link to {}",
    "resend": "{} sent again, unordered",
    "rehint": "{} hinted again, anywhere",
    "replay": "{} read again from the first",
    "rebalance": "second {} joins and leaves",
}


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault and when it was in force."""

    name: str
    at: float
    over: float


def name_of(fault: Fault) -> str:
    """What a fault is called in the table."""
    deed, what = fault
    return _WORDS.get(deed, deed + " {}").format(what)


def processes() -> tuple[str, ...]:
    """Every process of the product that runs on one machine."""
    return tuple(process.spec.name for process in product({}, port=0))


def others(*, apache: bool, disks: Sequence[str]) -> list[Fault]:
    """Every fault that is neither a kill nor a freeze of a process."""
    servers = (REDIS, POSTGRES, KAFKA) if apache else (REDIS, POSTGRES)
    found: list[Fault] = [("resend", TURNS), ("rehint", TURNS)]
    for server in servers:
        found.append(("restart", server))
        found.extend((ailment, server) for ailment in AILMENTS)
    found.extend(("fill", server) for server in disks)
    if apache:
        # The in-memory broker takes a group's second member slowly, and no offsets from outside of the group.
        found.extend([("rebalance", ORCHESTRATOR), ("replay", TURNS)])
    return found


def deck(chance: random.Random, *, kills: int, freezes: int, rest: Sequence[Fault]) -> list[Fault]:
    """So many kills and freezes, of each process in its turn, and `rest`, in a random order."""
    names = processes()
    dealt: list[Fault] = list(rest)
    dealt.extend(("kill", name) for name in islice(cycle(chance.sample(names, len(names))), kills))
    dealt.extend(("freeze", name) for name in islice(cycle(chance.sample(names, len(names))), freezes))
    return chance.sample(dealt, len(dealt))


def names(injected: Sequence[Injected]) -> list[str]:
    """Each kind of fault once, in order of its name."""
    return sorted({fault.name for fault in injected})
