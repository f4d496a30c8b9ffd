"""The table says whom a fault touched, and what went wrong with them."""

import random

from tests.chaos.checker import Kind, Violation
from tests.chaos.evidence import Call, Evidence, Promise
from tests.chaos.faults import Injected, deck, name_of, others, processes
from tests.chaos.report import merged, rows, table
from tests.chaos.test_checker import NOON, sound

KILL = Injected(name="kill gateway", at=NOON.timestamp() + 0.5, over=NOON.timestamp() + 1.5)


def _asked_at_once() -> Evidence:
    """Two turns that end one and three seconds after noon; the second was asked after the kill was over."""
    evidence, noon = sound(), NOON.timestamp()
    evidence.promises = [
        Promise(turn=name, conversation="c", place=n, asked=noon + 2 * n, at=noon + 2 * n)
        for n, name in enumerate(("one", "two"))
    ]
    return evidence


def test_a_fault_touches_the_turns_under_way_while_it_is_in_force() -> None:
    """A turn asked before a fault was over, and not ended when it began, counts; its recovery starts at the fault."""
    row = rows(_asked_at_once(), [KILL], [])[0]
    assert (row.fault, row.injected, row.turns, row.slowest) == ("kill gateway", 1, 1, 0.5)


def test_a_model_fault_touches_the_turn_of_the_call_it_struck() -> None:
    """What a model server did wrong is counted from its own log."""
    evidence = _asked_at_once()
    evidence.calls = [Call(turn="two", attempt="1", outcome="hang", at=NOON.timestamp() + 2)]
    found = {row.fault: row for row in rows(evidence, [], [])}
    assert (found["model: hang"].injected, found["model: hang"].turns, found["model: hang"].slowest) == (1, 1, 1)
    assert found["model: cut"].injected == 0


def test_a_violation_stands_in_the_rows_of_its_faults_and_of_all() -> None:
    """A finding is shown under each fault that touched its turn, and once under all."""
    wrong = [Violation(kind=Kind.LOST, turn="one", why="was planted")]
    head, kill, *_, everything = table(rows(_asked_at_once(), [KILL], wrong)).splitlines()
    assert head.split()[:4] == ["fault", "injected", "turns", "lost"]
    assert kill.split()[:5] == ["kill", "gateway", "1", "1", "1"]
    assert everything.split()[:4] == ["all", "1", "2", "1"]


def test_rounds_add_up_to_one_table() -> None:
    """Counts are added, the slowest is the slowest of all, and `all` stays the last row."""
    wrong = [Violation(kind=Kind.LOST, turn="one", why="was planted")]
    once = rows(_asked_at_once(), [KILL], wrong)
    calm = rows(_asked_at_once(), [], [])
    kill, *models, everything = merged([once, calm, once])
    assert (kill.fault, kill.injected, kill.turns, kill.slowest) == ("kill gateway", 2, 2, 0.5)
    assert kill.wrong[Kind.LOST] == 2
    assert [row.fault for row in models] == sorted(row.fault for row in models)
    assert (everything.fault, everything.turns, everything.wrong[Kind.LOST]) == ("all", 6, 2)


def test_a_seed_deals_the_same_faults_again_and_each_process_in_its_turn() -> None:
    """Kills and freezes reach every process before any twice; the same seed deals them in the same order."""
    kinds, rest = len(processes()), others(apache=True, disks=("redis",))
    dealt = deck(random.Random(7), kills=kinds + 2, freezes=kinds, rest=rest)
    assert dealt == deck(random.Random(7), kills=kinds + 2, freezes=kinds, rest=rest)
    assert {what for deed, what in dealt if deed == "kill"} == set(processes())
    assert sorted(what for deed, what in dealt if deed == "freeze") == sorted(processes())
    assert len(dealt) == 2 * kinds + 2 + len(rest)


def test_every_fault_has_a_name_of_its_own() -> None:
    """What is counted in one row is one kind of fault."""
    rest = others(apache=True, disks=("redis", "postgres"))
    assert len({name_of(fault) for fault in rest}) == len(set(rest)) == len(rest)
    assert not set(others(apache=False, disks=())) & {("restart", "kafka"), ("rebalance", "orchestrator")}
