"""Prints recall and precision of the redaction by kind, what it hit by mistake, and its cost; then one JSON line.

`python -m benchmarks.redaction`. Exit status 1 if a kind with a checkable shape was missed, or more than one finding
is false: what a test in CI holds as well.
"""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.redaction.report import Report, compare, hits_in, microseconds, ordering_turns, read_sample
from infra.redaction.redactor import Redactor
from infra.redaction.rules import rules
from infra.redaction.spans import STRUCTURED, Kind

MOST_FALSE_HITS = 1


def main() -> int:
    """Measure and print."""
    sample, redactor = read_sample(), Redactor()
    found = compare(sample, redactor)
    clean = [message.text for message in sample if not message.marks]
    turns = ordering_turns(Path.cwd())
    summary = {
        **{f"{kind} {what}": value for kind, score in found.scores.items() for what, value in score.figures().items()},
        "false hits": len(found.false_hits),
        "us a message with personal data": microseconds([one.text for one in sample if one.marks], redactor),
        "us a clean message": microseconds(clean, redactor),
    }
    if turns is not None:
        summary |= {f"{kind} in ordering turns": n for kind, n in hits_in(turns, redactor).items()}
        summary["in ordering turns, names aside"] = (
            hits_in(turns, redactor).total() - hits_in(turns, redactor)[Kind.NAME]
        )
        summary["ordering turns"] = len(turns)
        summary["us an ordering turn"] = microseconds(turns, redactor)
    Console(soft_wrap=True).print(table(found))
    for line in told(found):
        print(line)
    if turns is None:
        print("The ordering turns are not at hand, so nothing is said about them.")
    targets = {f"{kind} recall": "1" for kind in STRUCTURED} | {"false hits": f"<= {MOST_FALSE_HITS}"}
    print(json.dumps({"benchmark": "redaction", "rules": rules().version, "summary": summary, "targets": targets}))
    complete = all(found.scores[kind].found == found.scores[kind].marked for kind in STRUCTURED)
    return 0 if complete and len(found.false_hits) <= MOST_FALSE_HITS else 1


def table(found: Report) -> Table:
    """Return a row for each kind."""
    shown = Table("kind", "marked", "recall", "precision", title=f"{found.messages} messages, rules {rules().version}")
    for kind, score in found.scores.items():
        figures = score.figures()
        shown.add_row(kind, str(score.marked), f"{figures['recall']:.1%}", f"{figures['precision']:.1%}")
    return shown


def told(found: Report) -> list[str]:
    """Return a line for everything that was missed or hit by mistake."""
    missed = [f"missed {kind}: {line}" for kind, score in found.scores.items() for line in score.missed]
    return missed + [f"false {line}" for line in found.false_hits]


if __name__ == "__main__":
    sys.exit(main())
