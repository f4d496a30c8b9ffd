"""What a delta of a streamed JSON reply costs: the scanner, the scanner with the sanitiser, and parsing again.

The peer parses everything received so far at each delta (jiter, `partial_mode="trailing-strings"`) and hands out
what is new. Its cost depends only on how much has arrived, so long replies are sampled at even distances.
"""

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Final, TypeVar, cast

import jiter

from workers.answers.extract import FieldScanner
from workers.answers.sanitise import HtmlStream
from workers.guardrails.links import any_link

_T = TypeVar("_T")

SIZES: Final = (1_024, 4_096, 16_384, 65_536)
DELTAS: Final = (1, 4, 40)
ROUNDS: Final = 5
FED_PER_ROUND: Final = 2_000
PARSES_PER_ROUND: Final = 200

_PARAGRAPH: Final = (
    '<p>The plan covers <strong>three regions</strong> and costs less than "two of a kind"; read the '
    '<a href="https://example.com/plans?year=1&amp;tier=2">comparison</a> \u2013 caf\u00e9 included \U0001f600.</p>\n'
    "<ul><li>Set up in a day</li><li>No contract</li></ul>\n"
)


def run() -> dict[str, object]:
    """Measure every size and delta length; times are CPU microseconds per delta, medians over interleaved rounds."""
    results = {f"{size // 1_024}KB/{delta}": _measure(_reply(size), delta) for size in SIZES for delta in DELTAS}
    first, last = f"{SIZES[0] // 1_024}KB", f"{SIZES[-1] // 1_024}KB"
    growth = {
        contender: {str(delta): _ratio(results, contender, f"{last}/{delta}", f"{first}/{delta}") for delta in DELTAS}
        for contender in ("scanner_us", "scanner_and_html_us", "reparse_us")
    }
    return {"benchmark": "extract", "rounds": ROUNDS, "results": results, "growth_64KB_over_1KB": growth}


def main() -> None:
    """Print the figures as one JSON line."""
    print(json.dumps(run()))


def _reply(size: int) -> str:
    html = (_PARAGRAPH * (size // len(_PARAGRAPH) + 1))[: size - 100]
    return json.dumps({"dimension": "fit", "html_response": html})


def _measure(reply: str, length: int) -> dict[str, float]:
    deltas = [reply[at : at + length] for at in range(0, len(reply), length)]
    step = max(1, len(deltas) // PARSES_PER_ROUND)
    prefixes = [reply[: at * length].encode() for at in range(1, len(deltas) + 1, step)]
    samples: dict[str, list[float]] = {"scanner_us": [], "scanner_and_html_us": [], "reparse_us": []}
    for _ in range(ROUNDS):
        samples["scanner_us"].append(_timed(_scan, deltas, FED_PER_ROUND))
        samples["scanner_and_html_us"].append(_timed(_scan_and_sanitise, deltas, FED_PER_ROUND))
        samples["reparse_us"].append(_timed(_reparse, prefixes, PARSES_PER_ROUND))
    figures = {name: round(median(times), 3) for name, times in samples.items()}
    figures["reparse_over_scanner"] = round(figures["reparse_us"] / figures["scanner_us"], 1)
    figures["reparse_over_scanner_and_html"] = round(figures["reparse_us"] / figures["scanner_and_html_us"], 1)
    return figures


def _timed(work: Callable[[list[_T]], None], items: list[_T], at_least: int) -> float:
    repeats = 1 + at_least // len(items)
    start = time.process_time_ns()
    for _ in range(repeats):
        work(items)
    return (time.process_time_ns() - start) / 1e3 / (repeats * len(items))


def _scan(deltas: list[str]) -> None:
    feed = FieldScanner().feed
    for delta in deltas:
        feed(delta)


def _scan_and_sanitise(deltas: list[str]) -> None:
    feed, sanitise = FieldScanner().feed, HtmlStream(links=any_link).feed
    for delta in deltas:
        text = feed(delta)
        if text:
            sanitise(text)


def _reparse(prefixes: list[bytes]) -> None:
    seen = 0
    for prefix in prefixes:
        try:
            parsed = cast("dict[str, str]", jiter.from_json(prefix, partial_mode="trailing-strings"))
        except ValueError:
            continue  # the prefix ends inside an escape
        text = parsed.get("html_response", "")
        _fresh, seen = text[seen:], len(text)


def _ratio(results: dict[str, dict[str, float]], contender: str, over: str, under: str) -> float:
    return round(results[over][contender] / results[under][contender], 2)


if __name__ == "__main__":
    main()
