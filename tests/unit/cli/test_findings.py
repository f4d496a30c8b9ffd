"""What the doctor found, for people and programs."""

import json

from cli.findings import as_lines, fail, healthy, ok, to_json, warn

FOUND = [
    ok("Python", "3.11.2"),
    warn("disk", "1.2 GiB free", mend="Make room."),
    fail("PostgreSQL", "no\nanswer \x1b[2J", mend="Start it."),
]


def test_one_line_each_and_how_to_mend() -> None:
    """Names stand in a column, what is not ok is followed by its mend, and nothing foreign commands the terminal."""
    assert as_lines(FOUND, styled=False).splitlines() == [
        "ok    Python      3.11.2",
        "warn  disk        1.2 GiB free",
        "                  → Make room.",
        "fail  PostgreSQL  no answer �[2J",
        "                  → Start it.",
    ]


def test_states_are_coloured() -> None:
    """On a terminal the state is coloured and nothing else."""
    assert as_lines(FOUND[:1], styled=True) == "\x1b[32mok  \x1b[0m  Python  3.11.2\n"


def test_a_warning_is_not_a_failure() -> None:
    """Only what fails makes an installation unhealthy, in words and in the exit status."""
    assert healthy(FOUND[:2])
    assert not healthy(FOUND)


def test_programs_get_the_same() -> None:
    """The JSON has every finding and the verdict."""
    told = json.loads(to_json(FOUND))
    assert told["ok"] is False
    assert [check["state"] for check in told["checks"]] == ["ok", "warn", "fail"]
    assert told["checks"][1] == {"name": "disk", "state": "warn", "says": "1.2 GiB free", "mend": "Make room."}
