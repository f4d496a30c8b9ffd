"""What an exhaustive search says about the protocol, and what every part of it is for.

`FAIRLEAD_MODEL=deep` also searches the bounds that take minutes. `-s` prints how much was seen.
"""

import os

import pytest

from tests.model.turn_model import (
    ASKED_TWICE,
    BEGUN_AFTER_TAKEOVER,
    OWNER_SHUT_OUT,
    TERMINAL,
    TWO_ANSWERS,
    UNPAID_RESCUE,
    Bounds,
    Mutant,
    search,
)

DEEP = pytest.mark.skipif(os.environ.get("FAIRLEAD_MODEL") != "deep", reason="takes minutes; FAIRLEAD_MODEL=deep")

LONGEST_TRACE = 17


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(Bounds(upkeeps=1, faults=1), id="one upkeep and any one fault"),
        pytest.param(Bounds(upkeeps=2, faults=0), id="two upkeeps"),
        pytest.param(Bounds(upkeeps=1, faults=0, takeovers=1), id="a takeover"),
        pytest.param(Bounds(upkeeps=1, faults=1, takeovers=1), id="a takeover and any one fault", marks=DEEP),
        pytest.param(Bounds(upkeeps=2, faults=1, wipes=False), id="two upkeeps and one fault", marks=DEEP),
        pytest.param(Bounds(upkeeps=1, faults=2), id="one upkeep and any two faults", marks=DEEP),
    ],
)
@pytest.mark.timeout(1_800)
def test_no_interleaving_breaks_a_promise(bounds: Bounds) -> None:
    """Whatever dies, freezes, fails or forgets, no promise is broken, and every state can still reach a told end."""
    found = search(bounds)

    print(f"\n{found.states:,} states, {found.steps:,} steps, ended {found.endings}")  # noqa: T201 - asked for with -s
    assert found.violation is None
    assert found.stuck is None
    assert set(found.endings) == set(TERMINAL) - (set() if bounds.takeovers else {"handed_off"})


@pytest.mark.parametrize(
    ("mutant", "violation"),
    [
        (Mutant.NO_COMMIT_POINT, TWO_ANSWERS),
        (Mutant.NO_APPEND_FENCE, TWO_ANSWERS),
        (Mutant.NO_SEAL, TWO_ANSWERS),
        (Mutant.MISSING_IS_UNSEEN, TWO_ANSWERS),
        (Mutant.SEAL_BEFORE_LEDGER, TWO_ANSWERS),
        (Mutant.RESCUE_TWICE, ASKED_TWICE),
        (Mutant.RESCUE_UNPAID, UNPAID_RESCUE),
        (Mutant.TELL_CHECKPOINTS, TWO_ANSWERS),
        (Mutant.KEEP_CHECKPOINT, TWO_ANSWERS),
        (Mutant.TRUST_OLD_FENCE, OWNER_SHUT_OUT),
        (Mutant.VISIBLE_UNASKED, BEGUN_AFTER_TAKEOVER),
        (Mutant.SILENT_UNASKED, BEGUN_AFTER_TAKEOVER),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Mutant) else "",
)
def test_every_part_is_needed(mutant: Mutant, violation: str) -> None:
    """Without this part of the protocol a short run breaks a promise: the search would see it if the part were lost."""
    takeovers = 1 if violation == BEGUN_AFTER_TAKEOVER else 0
    found = search(Bounds(faults=1, takeovers=takeovers, mutant=mutant, seek=violation))

    assert found.violation is not None
    print(f"\n{len(found.violation.steps)} steps: {'; '.join(found.violation.steps)}")  # noqa: T201 - asked for with -s
    assert len(found.violation.steps) <= LONGEST_TRACE


def test_every_mutant_is_tried() -> None:
    """No mutant is defined and then forgotten."""
    [tried] = [mark.args[1] for mark in test_every_part_is_needed.pytestmark]  # pyright: ignore[reportFunctionMemberAccess] - set by the decorator above
    assert {mutant for mutant, _ in tried} == set(Mutant)
