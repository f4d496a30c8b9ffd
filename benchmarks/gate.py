"""What the confidence gate lets through, how true its confidences are, and what holding back costs the visitor.

A simulated model gives decisions of a known mix: sure and right, sure and wrong, unsure and either. Each streams
through the product's provider and attempt. Half of the calls fit a calibration, the other half are judged by it:
expected calibration error, AUROC, and for each threshold how many are shown and how many of those are right.

Then every way of holding back is measured on paced streams: from the request to the first visible text, beside showing
at once what the model writes. `python -m benchmarks.gate` prints one JSON line; `--rows FILE` keeps the decisions as
`training.calibrate` reads them, `--dialect openai` measures the other dialect.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Final, Literal

import numpy as np

from benchmarks.harness import percentile, show, told
from infra.redis.frame_log import Stream
from schemas.completions import CompletionRequest, Delta, Message, ModelClocks, Provider
from schemas.frames import TurnStreamInfo
from schemas.gate_policy import Hold
from schemas.ids import TurnId
from schemas.outcomes import Answered, AttemptEnding
from simulators.control import FaultKind
from simulators.dialogues import dialogues
from simulators.testing import SimulatorHandle, running
from training.calibrate import Row, calibrate, quality_of
from workers.agents.discovery.answer import schema_of
from workers.agents.discovery.taxonomy import taxonomy
from workers.answers.attempt import run_attempt
from workers.answers.gate import Calibration, ConfidenceGate, Token, decision_tokens
from workers.answers.guard import Question, Rules
from workers.answers.writer import FrameWriter
from workers.providers.openai import OpenAIProvider
from workers.providers.tgi import TgiProvider
from workers.providers.wire import Wire

Dialect = Literal["tgi", "openai"]

MODEL: Final = "fairlead-simulator"
ADAPTER: Final = "discovery"
CALLS: Final = 600
STREAMS: Final = 25
FIRST_TOKEN_MS: Final = 120.0
INTER_TOKEN_MS: Final = 15.0
THRESHOLD: Final = 0.85

_TURN: Final = TurnId("00000000-0000-0000-0000-000000000001")
_CLOCKS: Final = ModelClocks(connect=5, first_token=30, between_tokens=30, total=120)

# Of a hundred decisions: so many, how likely the model thinks each token, within which spread, and how many are right.
_MIX: Final = (
    (62, 0.97, 0.02, 1.0),
    (3, 0.96, 0.03, 0.0),
    (35, 0.60, 0.18, 0.4),
)


def run(
    *,
    calls: int = CALLS,
    streams: int = STREAMS,
    dialect: Dialect = "tgi",
    rows: Path | None = None,
    paced: bool = True,
) -> dict[str, object]:
    """Measure both; `paced` false lets the streams run as fast as they can."""

    def measure() -> dict[str, object]:
        return asyncio.run(_measure(calls, streams, dialect, rows, paced=paced))

    return told("gate", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description="Measure the confidence gate.")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--dialect", choices=("tgi", "openai"), default="tgi")
    parser.add_argument("--rows", type=Path, help="where to keep the decisions, as JSON lines")
    wanted = parser.parse_args()
    show(run(calls=wanted.calls, dialect=wanted.dialect, rows=wanted.rows))


async def _measure(calls: int, streams: int, dialect: Dialect, rows: Path | None, *, paced: bool) -> dict[str, object]:
    async with _model(dialect) as (simulator, provider):
        seen = await _decisions(simulator, provider, calls)
        if rows is not None:
            _keep(rows, seen)
        fitted, judged = seen[: calls // 2], seen[calls // 2 :]
        calibration = calibrate(fitted, model=MODEL, adapter=ADAPTER)
        waits = await _waits(simulator, provider, calibration, streams, paced=paced)
    return {
        "dialect": dialect,
        "mix": [{"of_100": share, "chance": chance, "right": right} for share, chance, _, right in _MIX],
        "fitted_on": calibration.quality.rows,
        "judged": _judged(calibration, judged),
        "first_visible_ms": waits,
        "added_ms": {name: round(wait - waits["bare"], 1) for name, wait in waits.items()},
        "targets": {"judged ece": 0.10, "judged auroc": 0.75},
    }


def _keep(place: Path, seen: Sequence[Row]) -> None:
    lines = (json.dumps({"logprobs": list(logprobs), "correct": right}) for logprobs, right in seen)
    place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _judged(calibration: Calibration, rows: Sequence[Row]) -> dict[str, object]:
    confidence = np.array([calibration.confidence(logprobs) for logprobs, _ in rows])
    right = np.array([correct for _, correct in rows], dtype=np.int64)
    return quality_of(confidence, right).model_dump()


async def _decisions(simulator: SimulatorHandle, provider: Provider, calls: int) -> list[Row]:
    """Return so many decisions of the mix, in an order of chance, each with its tokens as the provider gave them."""
    source, seen = random.Random(7), list[Row]()
    shares = [share for share, *_ in _MIX]
    for number in range(calls):
        [(_, chance, spread, right)] = source.choices(_MIX, weights=shares)
        correct = source.random() < right
        sure = min(0.9999, max(0.02, source.gauss(chance, spread)))
        simulator.control(fault=_fault(correct=correct), confidence=sure)
        seen.append((await _decided(provider, number), correct))
    return seen


async def _decided(provider: Provider, number: int) -> tuple[float, ...]:
    """Return the log-probabilities of one decision; the rest of the answer is left."""
    tokens: list[Token] = []
    async with aclosing(provider.stream(_request(number))) as stream:
        async for item in stream:
            if isinstance(item, Delta):
                tokens.extend(zip(item.tokens, item.logprobs, strict=True))
            if "html_response" in "".join(text for text, _ in tokens):
                break
    return decision_tokens(tokens)


def _fault(*, correct: bool) -> FaultKind:
    return "none" if correct else "misjudged"


async def _waits(
    simulator: SimulatorHandle, provider: Provider, calibration: Calibration, streams: int, *, paced: bool
) -> dict[str, float]:
    """Return the median milliseconds from the request to the first visible text, by what is held back."""
    simulator.control(
        fault="slow",
        confidence=0.99,
        first_token_ms=FIRST_TOKEN_MS if paced else 0,
        inter_token_ms=INTER_TOKEN_MS if paced else 0,
    )
    gate = ConfidenceGate(calibration, 0.0)
    ways: dict[str, tuple[Rules, ConfidenceGate | None]] = {
        "bare": (Rules("discovery"), None),
        "gated": (Rules("discovery", schema=schema_of()), gate),
        **{f"{hold}, gated": (_rules(hold), gate) for hold in ("decision", "sentence", "answer")},
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(streams):
        for name, (rules, judge) in ways.items():
            found[name].append(await _first_visible(provider, number, rules, judge))
    waits = {name: round(median(values), 1) for name, values in found.items()}
    return waits | {"bare p95": round(percentile(found["bare"], 0.95), 1)}


async def _first_visible(provider: Provider, number: int, rules: Rules, gate: ConfidenceGate | None) -> float:
    writer = FrameWriter(stream=Stream(_TURN, "bench", "c1", 1), info=TurnStreamInfo(_TURN, "c1", 0))
    first: list[float] = []
    began = time.perf_counter()

    async def seen(html: str) -> bool:
        first.append(time.perf_counter())
        writer.write(html)
        return True

    ending: AttemptEnding = await run_attempt(
        provider, _request(number), writer, seen, "primary", rules=rules, gate=gate
    )
    if not isinstance(ending, Answered):
        raise RuntimeError("A stream that nothing was wrong with was not answered.")
    return (first[0] - began) * 1e3


def _rules(hold: Hold) -> Rules:
    question = Question(lambda name: taxonomy().question(name, "en"), otherwise="budget", longest=60)
    return Rules("discovery", hold, schema_of(), question=question)


def _request(number: int) -> CompletionRequest:
    intents = dialogues().intents
    said = f"{intents[number % len(intents)].keywords[0]} {number}"
    messages = (Message("system", "You are the discovery agent. Write JSON."), Message("user", said))
    return CompletionRequest(_TURN, 1, MODEL, messages, schema_of(), 400, _CLOCKS, adapter=ADAPTER)


@asynccontextmanager
async def _model(dialect: Dialect) -> AsyncGenerator[tuple[SimulatorHandle, Provider]]:
    wire = Wire()
    async with running(dialect, models=[ADAPTER] if dialect == "openai" else None) as simulator:
        provider: Provider
        if dialect == "tgi":
            provider = TgiProvider(name="tgi", wire=wire, base_url=simulator.base_url, known_adapters=[ADAPTER])
        else:
            address = f"{simulator.base_url}/v1"
            provider = OpenAIProvider(name="vllm", wire=wire, base_url=address, api_key="-", logprobs=True)
        try:
            yield simulator, provider
        finally:
            await provider.aclose()
            await wire.aclose()


if __name__ == "__main__":
    main()
