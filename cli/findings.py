"""What an examination found, and how it is told."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from cli.terminal import RESET, harmless

State = Literal["ok", "warn", "fail"]

_COLOURS: Final[dict[State, str]] = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}
_WIDTH: Final = len("fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    says: str
    mend: str = ""
    """What to do about it; empty when all is well."""


def ok(name: str, says: str) -> Finding:
    """All is well."""
    return Finding(name=name, state="ok", says=says)


def warn(name: str, says: str, *, mend: str) -> Finding:
    """It works, but not as it should."""
    return Finding(name=name, state="warn", says=says, mend=mend)


def fail(name: str, says: str, *, mend: str) -> Finding:
    """It does not work."""
    return Finding(name=name, state="fail", says=says, mend=mend)


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.state != "fail" for finding in findings)


def to_json(findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON object."""
    return json.dumps({"ok": healthy(findings), "checks": [asdict(finding) for finding in findings]}, indent=2)


def as_lines(findings: Sequence[Finding], *, styled: bool) -> str:
    """Return one line a finding, and below those that are not ok how to mend them."""
    names = max((len(finding.name) for finding in findings), default=0)
    return "".join(_lines(finding, names, styled=styled) for finding in findings)


def _lines(finding: Finding, names: int, *, styled: bool) -> str:
    state = finding.state.ljust(_WIDTH)
    if styled:
        state = f"{_COLOURS[finding.state]}{state}{RESET}"
    line = f"{state}  {finding.name.ljust(names)}  {_one_line(finding.says)}\n"
    if finding.mend:
        line += " " * (_WIDTH + 2 + names + 2) + f"→ {_one_line(finding.mend)}\n"
    return line


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))
