"""The benches run: at sizes that measure nothing, each gives its keys. How fast anything is, no test asks."""

from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from benchmarks import __main__ as every
from benchmarks import (
    client,
    compliance,
    enqueue,
    extract,
    growth,
    publish,
    replay,
    round_trips,
    streams,
    turn_overhead,
    visitor,
)
from benchmarks.commands import known_statements
from benchmarks.harness import NOWHERE, medians, percentile, ratio
from benchmarks.proxy import CountingProxy, Reading
from benchmarks.visitor import whole_system
from infra.embedded.servers import Endpoints


def test_dispatch_is_measured_beside_celery(redis_url: str) -> None:
    """Every way of sending hints gives a rate, its CPU and the stalls of the loop."""
    found = enqueue.run(hints=20, rounds=1, given=_only_redis(redis_url))

    assert _ways(found) == {
        "idle",
        "ours_single",
        "ours_batched",
        "celery_on_loop",
        "celery_in_thread",
        "raw_lpush",
    }
    assert {"per_s", "cpu_us", "stall_max_ms", "stall_p99_ms"} == _figures(found, "ours_batched")
    _check_told(found)


def test_publishing_is_measured_beside_plain_commands(redis_url: str) -> None:
    """Every chunk of every way arrives, and each way has its CPU, latency and chunks per flush."""
    found = publish.run(streams=2, chunks=4, rounds=1, given=_only_redis(redis_url))

    assert _ways(found) == {"fused", "joined", "publish", "xadd_publish"}
    assert {"cpu_us", "latency_p50_ms", "chunks_per_flush"} == _figures(found, "fused")
    _check_told(found)


def test_streams_are_measured_beside_a_bare_loop(database_url: str, redis_url: str) -> None:
    """The bare loop and the worker's runtime read the same streams to their end."""
    places = Endpoints(kafka=NOWHERE, redis=redis_url, database=database_url)
    found = streams.run(sizes=(2,), tokens=60, seconds=0.3, rounds=1, dialects=("tgi",), door=False, given=places)

    assert _ways(found) == {"tgi 2 bare", "tgi 2 runtime"}
    figures = cast("Mapping[str, Mapping[str, float]]", found["medians"])
    assert figures["tgi 2 runtime"]["answered"] == 1
    assert {"answered", "makespan", "cpu_us_per_chunk", "threads", "rss_kib_per_stream"} == figures["tgi 2 bare"].keys()
    _check_told(found)


def test_the_whole_system_is_measured_and_counted(
    database_url: str, redis_url: str, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns go through every process: their stages have times, and their round trips are counted by process."""
    places = Endpoints(kafka=NOWHERE, redis=redis_url, database=database_url)
    monkeypatch.setattr(visitor, "WARM_TURNS", 2)
    with (
        CountingProxy(database_url, known=known_statements()).running() as proxy,
        whole_system(places, "memory", database=proxy.database, state=state_directory) as system,
    ):
        waits = turn_overhead.run(turns=3, rounds=1, hops=2, given=places, system=system)
        trips = round_trips.run(
            turns=4, settle_seconds=1.2, kinds=("answered", "fell back"), given=places, counted=(proxy, system)
        )

    assert _ways(waits) == {"turn", "hops"}
    assert list(cast("Mapping[str, float]", waits["stages_ms"])) == [
        "sent to received",
        "received to preparing",
        "preparing to queued",
        "queued to running",
        "running to streaming",
        "streaming to visible",
    ]
    _check_told(waits)
    per_turn = cast("Mapping[str, Mapping[str, float]]", trips["per_turn"])
    assert {
        "postgres orchestrator: inbox.prepare",
        "postgres agents: claims.claim",
        "postgres agents: claims.visible",
        "postgres agents: settlement.settle",
        "redis script arm",
    } <= per_turn["answered"].keys()
    assert per_turn["answered"]["kafka fairlead.turns"] == 1
    assert per_turn["fell back"]["postgres agents: claims.fallback"] == 1
    assert "postgres agents: claims.fallback" not in per_turn["answered"]
    shown = StringIO()
    Console(file=shown, width=160).print(round_trips.table(per_turn))
    assert "claims.fallback" in shown.getvalue()
    _check_told(trips)


def test_growth_is_measured_at_each_backlog(database_url: str, redis_url: str) -> None:
    """Each backlog has its rate and its bytes, and the largest is drained to its last turn."""
    places = Endpoints(kafka=NOWHERE, redis=redis_url, database=database_url)
    found = growth.run(sizes=(20, 40), drained=10, rounds=1, whole=True, given=places)

    assert _ways(found) == {"20", "40"}
    assert {"per_s", "sweep_ms"} == _figures(found, "40")
    summary = cast("Mapping[str, float]", found["summary"])
    assert summary["40 queued, PostgreSQL bytes a turn"] > 0
    assert summary["40 queued, Redis bytes a turn"] > 0
    assert len(cast("Mapping[str, list[float]]", found["whole"])["per_s_by_tenth"]) == 10
    _check_told(found)


def test_replay_is_measured_beside_a_program_that_sends_records_again(
    database_url: str, redis_url: str, memory_kafka: str
) -> None:
    """Every replay of a job is recorded, every record is sent again, and each way has its rate."""
    places = Endpoints(kafka=memory_kafka, redis=redis_url, database=database_url)
    found = replay.run(letters=20, rounds=1, given=places)

    assert _ways(found) == {"raw", "ours"}
    assert {"per_s", "cpu_us"} == _figures(found, "ours")
    _check_told(found)


def test_the_scanner_is_measured_beside_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each size and length of a delta has its figures, and each contender its growth."""
    for name, small in {"SIZES": (1_024,), "DELTAS": (40,), "ROUNDS": 1, "FED_PER_ROUND": 1}.items():
        monkeypatch.setattr(extract, name, small)
    found = extract.run()

    assert cast("Mapping[str, object]", found["results"]).keys() == {"1KB/40"}
    assert "growth_64KB_over_1KB" in found


def test_clients_are_measured_beside_a_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pace has the cost of each client, and their ratios."""
    monkeypatch.setattr(client, "ROUNDS", 1)
    monkeypatch.setattr(client, "CALLS", {"burst": (1, 1), "paced": (1, 1)})
    found = client.run()

    costs = cast("Mapping[str, Mapping[str, float]]", found["cpu_ms_per_call"])
    assert {"openai_ours", "openai_bare", "tgi_ours", "tgi_bare"} <= costs["burst"].keys()
    assert cast("Mapping[str, object]", found["ratios"]).keys() == {"burst", "paced"}


def test_the_table_shows_what_was_found_and_what_was_aimed_at() -> None:
    """A figure stands beside its target, and a bench that failed is a row too."""
    figures: Mapping[str, Any] = {
        "calibration": {"before": {"cpu_ms": 60, "core_share": 0.9}, "after": {"cpu_ms": 70, "core_share": 0.8}},
        "summary": {"ours / theirs": 12.5},
        "targets": {"ours / theirs": ">= 10"},
    }
    shown = StringIO()
    Console(file=shown, width=120).print(
        every.table([("enqueue", figures), ("streams", None), ("client", {"ratios": {"burst": {"a": 2}}})])
    )

    for words in ("ours / theirs", "12.50", ">= 10", "0.80", "failed", "ratios burst a"):
        assert words in shown.getvalue()


def test_rounds_are_compared_within_themselves() -> None:
    """A ratio is the median of each round's own ratio, so that a slow round slows both sides of it."""
    samples = {"ours": [{"t": 2.0}, {"t": 20.0}, {"t": 2.0}], "theirs": [{"t": 1.0}, {"t": 10.0}, {"t": 4.0}]}

    assert ratio(samples, "ours", "theirs", "t") == 2
    assert medians(samples)["theirs"] == {"t": 4.0}
    assert (percentile([3, 1, 2], 0.5), percentile([3, 1, 2], 0.99), percentile([], 0.5)) == (2, 3, 0)


def test_the_relay_reads_what_a_client_asks() -> None:
    """Statements and round trips are counted under the client's name, however its bytes are cut."""
    startup = b"\0\3\0\0user\0me\0application_name\0fairlead-agents\0\0"
    stream = (
        b"\0\0\0\x08\x04\xd2\x16\x2f"
        + (len(startup) + 4).to_bytes(4, "big")
        + startup
        + b"P\0\0\0\x08name"
        + b"E\0\0\0\x09\0\0\0\0\0"
        + b"S\0\0\0\x04"
        + b"Q\0\0\0\x08one\0"
    )
    for size in (1, 7, len(stream)):
        assert _read(stream, size) == {
            ("fairlead-agents", "parsed"): 1,
            ("fairlead-agents", "statements"): 2,
            ("fairlead-agents", "round trips"): 2,
        }


def test_the_relay_knows_statements_by_their_text() -> None:
    """A known statement is counted under its name each time it runs, also when it was prepared long before."""
    startup = b"\0\3\0\0application_name\0fairlead-agents\0\0"
    parse = b"s1\0SELECT 1\0\0\0"
    bind = b"\0s1\0\0\0\0\0\0\0"
    once = b"B" + (len(bind) + 4).to_bytes(4, "big") + bind + b"E\0\0\0\x09\0\0\0\0\0"
    stream = (
        (len(startup) + 4).to_bytes(4, "big") + startup + b"P" + (len(parse) + 4).to_bytes(4, "big") + parse + once * 2
    )

    counts = _read(stream, 3, {"SELECT 1": "ones.one"})

    assert counts["fairlead-agents", "ones.one"] == 2
    assert "claims.claim" in known_statements().values()


def _read(stream: bytes, size: int, known: Mapping[str, str] | None = None) -> "Counter[tuple[str, str]]":
    counts: Counter[tuple[str, str]] = Counter()
    reading = Reading(counts, known)
    for at in range(0, len(stream), size):
        reading.feed(stream[at : at + size])
    return counts


def _only_redis(url: str) -> Endpoints:
    return Endpoints(kafka=NOWHERE, redis=url, database=NOWHERE)


def _ways(found: Mapping[str, object]) -> set[str]:
    return set(cast("Mapping[str, object]", found["medians"]))


def _figures(found: Mapping[str, object], way: str) -> set[str]:
    return set(cast("Mapping[str, Mapping[str, float]]", found["medians"])[way])


def _check_told(found: Mapping[str, object]) -> None:
    assert {"benchmark", "calibration", "summary"} <= found.keys()
    assert all(isinstance(value, int | float) for value in cast("Mapping[str, object]", found["summary"]).values())


def test_discovery_answers_are_judged(database_url: str, redis_url: str) -> None:
    """A hundred turns whose models misbehave in every way are each one short question, about another thing."""
    places = Endpoints(kafka=NOWHERE, redis=redis_url, database=database_url)
    found = compliance.run(turns=100, given=places)

    assert (found["turns"], found["compliant"], found["examples"]) == (100, 1.0, [])
    assert found["repeated_dimensions"] == 0
    assert found["most_calls"] == 2
