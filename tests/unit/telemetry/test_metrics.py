"""The numbers have one form, and the port that serves them tells progress from an open door."""

import asyncio
import re
import time
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from infra.telemetry import metrics
from infra.telemetry.loop_lag import measure_lag, watch_loop_lag

CATALOGUE = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
FORBIDDEN_LABELS = {"tenant", "tenant_id", "conversation", "conversation_id", "turn_id", "channel"}


def test_names_have_one_form() -> None:
    """Each name starts with fairlead_, counters end in _total, times and instants in _seconds, shares in _ratio."""
    assert len(CATALOGUE) >= 20
    for metric in CATALOGUE:
        (family,) = metric.describe()
        assert re.fullmatch(r"fairlead_[a-z]+(_[a-z]+)*", family.name), family.name
        if isinstance(metric, Histogram):
            assert family.name.endswith(("_seconds", "_ratio")), family.name


def test_labels_have_few_values() -> None:
    """No number is labelled with anything a caller chooses."""
    for metric in CATALOGUE:
        labels = cast("tuple[str, ...]", vars(metric)["_labelnames"])
        assert not FORBIDDEN_LABELS & set(labels)


def test_every_number_says_what_it_tells() -> None:
    """A comment stands above each number of the catalogue, or above the pair it belongs to."""
    lines = Path(metrics.__file__).read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        if re.match(r"[A-Z_]+ = (Counter|Gauge|Histogram)\(", line):
            above = index - 1
            while lines[above] and not lines[above].startswith("#"):
                above -= 1
            assert lines[above].startswith("# "), f"line {index + 1} has no comment"


async def test_the_port_serves_numbers_and_health() -> None:
    """Metrics parse as Prometheus text; health is 200 while all parts move, 503 with the reason if one is stuck."""
    stuck: dict[str, str | None] = {"kafka": None, "sweep": None}
    metrics.UPKEEP_SWEEPS.labels("lost_hints", "ok").inc()
    async with (
        metrics.serve_metrics(0, lambda: stuck, host="127.0.0.1") as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        async with client.get("/metrics") as answer:
            assert answer.status == 200
            families = {family.name for family in text_string_to_metric_families(await answer.text())}
        assert {"fairlead_upkeep_sweeps", "fairlead_turns_accepted", "fairlead_event_loop_lag_seconds"} <= families
        async with client.get("/healthz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "ok")
        stuck["sweep"] = "no sweep for 42 s; look at the database"
        async with client.get("/healthz") as answer:
            assert answer.status == 503
            assert await answer.json() == {"status": "stuck", "parts": stuck}


async def test_degraded_is_told_and_is_not_stuck() -> None:
    """A part that does its work in a lesser way is named under 200; what is stuck beside it still makes 503."""
    stuck: dict[str, str | None] = {"leases": None}
    weak: dict[str, str | None] = {"model": None}
    async with (
        metrics.serve_metrics(0, lambda: stuck, degraded=lambda: weak, host="127.0.0.1") as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        for sentences, status, word in (
            ((None, None), 200, "ok"),
            ((None, "x"), 200, "degraded"),
            (("y", "x"), 503, "stuck"),
        ):
            stuck["leases"], weak["model"] = sentences
            async with client.get("/healthz") as answer:
                told = {"status": word, "parts": {"leases": sentences[0], "model": sentences[1]}}
                assert (answer.status, await answer.json()) == (status, told)


async def test_minus_one_serves_nothing() -> None:
    """A process told not to serve opens no port."""
    async with metrics.serve_metrics(-1, dict) as port:
        assert port is None


async def test_a_taken_port_is_an_error() -> None:
    """Two processes on one port: the second fails at once instead of running unseen."""
    async with metrics.serve_metrics(0, dict, host="127.0.0.1") as port:
        assert port is not None
        with pytest.raises(OSError, match="address already in use"):
            async with metrics.serve_metrics(port, dict, host="127.0.0.1"):
                raise AssertionError("unreachable")


async def test_a_blocking_call_shows_as_lag() -> None:
    """A call that holds the loop up is measured at nearly its length."""
    measuring = asyncio.create_task(measure_lag(0.01), name="measuring")
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the blocking call is the point
    assert await measuring >= 0.15


async def test_the_watch_ends_when_cancelled() -> None:
    """The watchdog runs until its process stops it."""
    watch = asyncio.create_task(watch_loop_lag(beat=0.001), name="watch")
    await asyncio.sleep(0.01)
    assert not watch.done()
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
