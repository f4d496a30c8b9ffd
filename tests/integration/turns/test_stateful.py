"""No order of events breaks a promise, on the real statements and scripts; and each part of them is needed.

`FAIRLEAD_STATEFUL=examples x steps @ seed` sets how much is tried, `80x30@1` unless set; `5000x50@7` takes hours. A
run with the same seed does the same again, and its failure is then made as short as possible.
`FAIRLEAD_STATEFUL_MUTANTS=1` tries every mutant instead of a few.
"""

import asyncio
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.exc import IntegrityError

from infra.redis.hub import Hub
from producers.admission import RecentTurns
from producers.gateway.watch import Watcher
from tests.integration.turns.arrivals import Parts
from tests.integration.turns.crew import without_a_clock
from tests.integration.turns.mutants import IN_SHORT, MUTANTS, Mutant
from tests.integration.turns.people import Peopled
from tests.integration.turns.promises import Ledger
from tests.support.gates import gates
from tests.support.pipeline import Pipeline, pipeline

ASKED: Final = os.environ.get("FAIRLEAD_STATEFUL")
EXAMPLES, STEPS, SEED = map(int, re.split("[x@]", ASKED or "80x30@1"))
EVERY_MUTANT: Final = os.environ.get("FAIRLEAD_STATEFUL_MUTANTS") == "1"


def live(parts: Parts) -> None:
    """Live so many lives."""
    phases = (Phase.generate, Phase.shrink) if ASKED and not EVERY_MUTANT else (Phase.generate,)
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    )

    @seed(SEED)
    class HereAndNow(Peopled):
        pass

    HereAndNow.parts = parts
    run_state_machine_as_test(HereAndNow, settings=profile)


@contextmanager
def all_parts(database_url: str, redis_url: str) -> Generator[Parts]:
    """The product's parts in one event loop, with gates in the drivers."""
    with asyncio.Runner() as runner, gates():
        ledger = runner.run(_ledger(database_url))
        context = pipeline(database_url, redis_url)
        p = runner.run(context.__aenter__())
        try:
            yield runner.run(_parts(runner, p, ledger, redis_url))
        finally:
            runner.run(ledger.close())
            runner.run(context.__aexit__(None, None, None))


async def _ledger(database_url: str) -> Ledger:
    address = database_url.replace("+asyncpg", "")
    ledger = await Ledger.connect(address)
    # Nobody pulls the plug here: waiting for the disk would only make it slow. Holds for connections from now on.
    await ledger.execute(f'ALTER DATABASE "{address.rpartition("/")[2]}" SET synchronous_commit = off')
    return ledger


async def _parts(runner: asyncio.Runner, p: Pipeline, ledger: Ledger, redis_url: str) -> Parts:
    watcher = Watcher(
        engine=p.engine, hub=Hub(redis_url), frames=p.frames, recent=RecentTurns(), draining=asyncio.Event()
    )
    return Parts(runner, p, without_a_clock(p), watcher, ledger)


@pytest.mark.timeout(24 * 3_600)
def test_no_order_of_events_breaks_a_promise(database_url: str, redis_url: str) -> None:
    """Whatever happens to turns in whatever order, each ends once, with one attempt's text, told frame by frame."""
    print(f"\nFAIRLEAD_STATEFUL={EXAMPLES}x{STEPS}@{SEED}")  # noqa: T201 - shown when it fails: it tells how to do it again
    with all_parts(database_url, redis_url) as parts:
        live(parts)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS if EVERY_MUTANT else IN_SHORT, ids=lambda mutant: mutant.name)
def test_every_part_is_needed(
    mutant: Mutant, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this part of the product a promise is broken, and the lives above find out."""
    mutant.apply(monkeypatch)
    with all_parts(database_url, redis_url) as parts, pytest.raises((AssertionError, IntegrityError)) as broken:
        live(parts)
    print(f"\n{mutant.name}: {str(broken.value).splitlines()[0]}")  # noqa: T201 - asked for with -s
    assert re.search(mutant.finds, str(broken.value)), str(broken.value).splitlines()[0]
