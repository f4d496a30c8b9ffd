"""The table says whom a fault touched, and what went wrong with them."""

import random

from tests.chaos.checker import Kind, Violation
from tests.chaos.evidence import Call, Evidence, Promise
from tests.chaos.faults import Injected, deck
from tests.chaos.report import rows, table
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
    row = rows(_asked_at_once(), [KILL])[0]
    assert (row.fault, row.injected, row.turns, row.slowest) == ("kill gateway", 1, {"one"}, 0.5)


def test_a_model_fault_touches_the_turn_of_the_call_it_struck() -> None:
    """What a model server did wrong is counted from its own log."""
    evidence = _asked_at_once()
    evidence.calls = [Call(turn="two", attempt="1", outcome="hang", at=NOON.timestamp() + 2)]
    found = {row.fault: row for row in rows(evidence, [])}
    assert (found["model: hang"].injected, found["model: hang"].turns, found["model: hang"].slowest) == (1, {"two"}, 1)
    assert found["model: cut"].injected == 0


def test_a_violation_stands_in_the_rows_of_its_faults_and_of_all() -> None:
    """A finding is shown under each fault that touched its turn, and once under all."""
    wrong = [Violation(kind=Kind.LOST, turn="one", why="was planted")]
    head, kill, *_, everything = table(rows(_asked_at_once(), [KILL]), wrong).splitlines()
    assert head.split()[:4] == ["fault", "injected", "turns", "lost"]
    assert kill.split()[:5] == ["kill", "gateway", "1", "1", "1"]
    assert everything.split()[:4] == ["all", "1", "2", "1"]


def test_a_seed_gives_the_same_faults_again_and_each_kind_in_its_turn() -> None:
    """Thirteen faults hold every kind; the same seed deals them in the same order."""
    dealt = deck(random.Random(7), 13, kafka=False)
    assert dealt == deck(random.Random(7), 13, kafka=False)
    assert len(set(dealt)) == 12
    assert ("restart", "kafka") in deck(random.Random(7), 14, kafka=True)
