"""Dead letters, replays and the audit as text, from plain data."""

import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.audit import Deed
from cli.audit import told as audit_told
from cli.failure import CommandFailed
from cli.letters import Letter, NewLetters, Page, Stats, WholeLetter, as_json, line, listed, summed_up, told
from cli.main import app
from cli.operators import GatewayAway, Place, patiently, place_of
from cli.replay import how_to_steer, rate_of
from cli.replays import Item, Job, Plan, ended, item_told, jobs_listed, planned, to_do
from cli.state import DEFAULT_STATE
from schemas.replays import ReplayMode

START = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
ID = "3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11"
EVIL = "\x1b[2J\x9b31m\r\u202e"
COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def letter(name: str = ID, *, at: float = 0, **more: Any) -> dict[str, Any]:
    moment = (START + timedelta(seconds=at)).isoformat()
    facts = {
        "dead_letter_id": name,
        "turn_id": ID,
        "tenant_id": "acme",
        "conversation_id": "c1",
        "agent": "discovery",
        "reason": "queue_deadline",
        "stage": "queued",
        "state": "unanswered",
        "created_at": moment,
        "updated_at": moment,
        "characters": 27,
    }
    return facts | more


def job(state: str = "finished", **more: Any) -> Job:
    facts = {
        "job_id": ID,
        "where": "state=unanswered",
        "mode": "deliver",
        "rate": 20,
        "max": 500,
        "stop_percent": 20,
        "late": False,
        "state": state,
        "created_by": "k1",
        "created_at": START.isoformat(),
        "ended_at": (START + timedelta(seconds=90)).isoformat(),
        "total": 10,
        "waiting": 0,
        "running": 0,
        "answered": 10,
        "failed": 0,
        "skipped": 0,
    }
    return Job.model_validate(facts | more)


def plan_of(mode: ReplayMode, most: int = 500, **counts: int) -> str:
    found = Plan.model_validate(
        {"counts": counts, "sample": [], "model_calls": 6.4, "tokens": 1234.4, "seconds": 190.0}
    )
    return planned(found, where="state=unanswered", mode=mode, rate=20, most=most, stop=20, styled=False)


def squeezed(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.splitlines()]


def test_a_list_has_a_line_a_letter() -> None:
    """A dead letter is one line below the columns' titles, also one of which little is known."""
    bare = letter(turn_id=None, conversation_id=None, agent=None, characters=None, stage="decode", reason="undecodable")
    rows = squeezed(
        listed([Letter.model_validate(letter(times=2, replays=1)), Letter.model_validate(bare)], styled=False)
    )
    assert rows == [
        "id since, UTC reason stage state agent times replays conversation",
        f"{ID} 2026-01-02 03:00:00 queue_deadline queued unanswered discovery 2 1 c1",
        f"{ID} 2026-01-02 03:00:00 undecodable decode unanswered — 1 0 —",
    ]
    assert squeezed(line(Letter.model_validate(bare))) == rows[2:]


def test_counts_are_summed_up() -> None:
    """Counts stand by reason, state and agent, with their sum below."""
    row = {"reason": "poison", "state": "unanswered", "n": 1200, "oldest_at": START, "newest_at": START}
    rows = squeezed(summed_up(Stats.model_validate({"total": 1200, "counts": [row]}), styled=False))
    assert rows[1:] == ["1,200 poison unanswered — 2026-01-02 03:00:00 2026-01-02 03:00:00", "1,200 dead letters."]


def test_one_letter_is_told_without_its_message() -> None:
    """What is known is named; the message is a length and the way to see it."""
    whole = WholeLetter.model_validate(
        letter(
            models=["discovery-slm", "frontier"],
            versions={"policy": 3, "model": "frontier"},
            replays=1,
            replay_turn=ID,
            kafka_topic="fairlead.turns",
            kafka_partition=1,
            kafka_offset=7,
        )
    )
    rows = squeezed(told(whole, styled=False))
    for said in (
        "reason queue_deadline, while queued",
        "models discovery-slm, then frontier",
        "versions policy 3, model frontier",
        f"replays its latest delivery is turn {ID}, 1 in vain",
        "event fairlead.turns, partition 1, offset 7",
        "message 27 characters; --reveal shows it, and the audit keeps that",
    ):
        assert said in rows


def test_a_revealed_letter_shows_message_answer_and_record() -> None:
    """With texts there the message is text, the answer HTML turned into text, and the record its bytes as text."""
    raw = {
        "key": encoded(b"acme:c1"),
        "value": encoded(b'{"a": "\xff"}'),
        "headers": [header("ce_id", b"1"), header("e")],
    }
    whole = WholeLetter.model_validate(
        letter(text="we lose umbrellas", shown_html="<p>Where <b>then</b>?</p>", record=raw)
    )
    shown = told(whole, styled=False)
    for said in ("we lose umbrellas", "Where then?", "key  acme:c1", "ce_id  1", "e      —", '{"a": "\ufffd"}'):
        assert said in shown
    assert "--reveal" not in shown


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def header(name: str, value: bytes | None = None) -> dict[str, str | None]:
    return {"name": encoded(name.encode()), "value": None if value is None else encoded(value)}


def test_nothing_that_is_told_commands_the_terminal() -> None:
    """Escape sequences from records, models and operators become replacement characters, in JSON escapes."""
    raw = {"key": encoded(EVIL.encode()), "value": encoded(EVIL.encode()), "headers": [header(EVIL, EVIL.encode())]}
    evil = letter(
        conversation_id=EVIL, channel=EVIL, error=EVIL, versions={EVIL: EVIL}, models=[EVIL], text=EVIL,
        shown_html=f"<p>{EVIL}</p>", record=raw,
    )  # fmt: skip
    answer = {"turn_id": EVIL, "state": "answered", "model": EVIL, "characters": 1}
    item = Item.model_validate(
        {"position": 1, "dead_letter_id": ID, "state": "failed", "note": EVIL, "old": answer, "new": answer,
         "difference": EVIL}
    )  # fmt: skip
    deed = {"at": START, "operator": EVIL, "verb": EVIL, "subject": EVIL, "detail": {EVIL: EVIL, "n": {"k": EVIL}}}
    for shown in (
        told(WholeLetter.model_validate(evil), styled=False),
        listed([Letter.model_validate(evil)], styled=False),
        line(Letter.model_validate(evil)),
        jobs_listed([job(where=EVIL)], styled=False),
        ended(job("stopped", reason=EVIL)),
        item_told(item),
        audit_told([Deed.model_validate(deed)], styled=False),
        as_json(evil),
    ):
        assert COMMANDS.search(shown) is None


def test_a_dry_run_says_what_becomes_of_which() -> None:
    """Counts stand by what would happen, with what it would cost and how long it would take."""
    rows = squeezed(plan_of("deliver", answer=3, moved_on=2, already_answered=1000, never_a_turn=1))
    assert rows == [
        "Dry run, deliver: 1,006 dead letters where state=unanswered",
        "3 to be answered, and shown to their visitors",
        "1,000 answered already: left alone",
        "2 in conversations that moved on: to be marked obsolete; --late answers them too",
        "1 records that never became turns: to be put back on their topic",
        "About 6 model calls and 1,234 tokens, within about 3 min at 20/s. It stops by itself once more than 20 % of "
        "at least 20 replays failed.",
    ]
    shadow = plan_of("shadow", most=2, answer=3, never_a_turn=1)
    assert "no visitor is shown anything" in shadow
    assert "only --mode deliver sends them back" in shadow
    assert "it takes 2, the oldest (--max)" in shadow


@pytest.mark.parametrize(
    ("mode", "counts", "n"),
    [
        ("deliver", {"answer": 3, "never_a_turn": 2, "moved_on": 1, "discarded": 9}, 6),
        ("shadow", {"answer": 3, "never_a_turn": 2, "discarded": 9}, 3),
        ("compare", {"never_a_turn": 2}, 0),
    ],
)
def test_what_there_is_to_do_depends_on_the_mode(mode: ReplayMode, counts: dict[str, int], n: int) -> None:
    """Only delivering changes records that never became turns and letters whose conversation moved on."""
    assert to_do(Plan.model_validate({"counts": counts, "model_calls": 0, "seconds": 0}), mode) == n


@pytest.mark.parametrize(
    ("of", "settled", "well", "says"),
    [
        (job(), True, True, "finished, 90.0 s after it began: 10 answered, 0 failed, 0 skipped of 10."),
        (job(answered=9, failed=1), True, False, "finished, 90.0 s after it began: 9 answered, 1 failed"),
        (job("aborted", answered=1, running=2, skipped=7), False, False, "was aborted, 90.0 s after it began: 1"),
        (job("stopped", reason="9 of 20 replays failed"), True, False, "stopped by itself, 90.0 s after it began (9 "),
        (job("paused", ended_at=None, waiting=4), False, False, "is paused: 10 answered, 0 failed, 0 skipped of 10, 4"),
        (job("running", ended_at=None), False, False, "is running: "),
    ],
)  # fmt: skip
def test_how_a_job_stands(of: Job, settled: bool, well: bool, says: str) -> None:
    """A job is settled when nothing more becomes of it, and well when it finished and nothing failed."""
    assert (of.settled, of.well) == (settled, well)
    assert ended(of).startswith(f"Replay job {ID} (deliver) {says}")


def test_an_item_sets_old_beside_new() -> None:
    """One line with both answers, and where it was revealed the differing lines below it."""
    item = Item.model_validate(
        {
            "position": 7,
            "dead_letter_id": ID,
            "state": "answered",
            "old": {"turn_id": ID, "state": "bounded", "characters": 1, "seconds": 0.5},
            "new": {"turn_id": ID, "state": "answered", "model": "frontier", "characters": 90, "tokens": 1300},
            "same": False,
            "difference": "-sorry\n+here",
        }
    )
    assert squeezed(item_told(item)) == [
        f"7 answered {ID} bounded, 1 character, 500 ms → answered by frontier, 90 characters, 1,300 tokens; "
        "another text",
        "-sorry",
        "+here",
    ]
    skipped = {"position": 1, "dead_letter_id": ID, "state": "skipped", "note": "moved_on"}
    assert squeezed(item_told(Item.model_validate(skipped))) == [f"1 skipped {ID} (moved_on)"]


def test_the_audit_tells_who_did_what() -> None:
    """One line a deed, its detail as names and values."""
    deed = {"at": START, "operator": "k1", "verb": "dead_letters_discarded", "subject": "dead_letters",
            "detail": {"reason": "a test", "discarded": 3}}  # fmt: skip
    rows = squeezed(audit_told([Deed.model_validate(deed)], styled=False))
    assert rows[1:] == ["2026-01-02 03:00:00 k1 dead_letters_discarded dead_letters reason: a test, discarded: 3"]


class Listing:
    """Dead letters that become visible while somebody follows them; two a page, newest first."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    def add(self, name: str, at: float) -> None:
        self.letters.append(Letter.model_validate(letter(name, at=at)))
        self.letters.sort(key=lambda found: found.created_at, reverse=True)

    def page(self, cursor: str | None) -> Page:
        begin = int(cursor or 0)
        more = str(begin + 2) if len(self.letters) > begin + 2 else None
        return Page(dead_letters=self.letters[begin : begin + 2], next=more)


def names(letters: list[Letter]) -> list[str]:
    return [found.dead_letter_id for found in letters]


def test_each_new_letter_is_followed_once() -> None:
    """New ones come oldest first, over pages, also one that became visible late, and none comes twice."""
    there = Listing()
    for n in range(4):
        there.add(f"old{n}", at=n)
    follower = NewLetters(there.page)
    assert names(follower.latest(1)) == ["old3"]
    assert follower.new() == []
    for n in range(5):
        there.add(f"new{n}", at=10 + n)
    assert names(follower.new()) == [f"new{n}" for n in range(5)]
    there.add("late", at=5)
    assert names(follower.new()) == ["late"]
    assert follower.new() == []


def test_the_first_letter_ever_is_followed() -> None:
    """Where there was none the first one is new."""
    there = Listing()
    follower = NewLetters(there.page)
    assert follower.latest(10) == []
    there.add("first", at=0)
    assert names(follower.new()) == ["first"]
    assert follower.new() == []


@pytest.mark.parametrize(("text", "rate"), [("20/s", 20), ("20", 20), ("90/m", 1.5), ("36/h", 0.01), ("0.5/s", 0.5)])
def test_rates_are_read(text: str, rate: float) -> None:
    """A rate is a number a second, minute or hour."""
    assert rate_of(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "fast", "0/s", "-1/s", "1/h", "20/d", "2000000/s", "20 /s"])
def test_other_rates_are_usage(text: str) -> None:
    """What is no rate, or none that a job may have, ends in a sentence and 2."""
    with pytest.raises(CommandFailed) as failed:
        rate_of(text)
    assert failed.value.status == 2


def test_hints_find_the_same_system_again() -> None:
    """Commands that are proposed have the options of the one that was given, but never the key."""
    elsewhere = place_of(DEFAULT_STATE, "https://example.com/a b/", "fl_live_secret")
    told = how_to_steer(elsewhere, ID)
    assert f"dlq jobs pause {ID} --url 'https://example.com/a b/'" in told
    assert "secret" not in told + repr(elsewhere)
    local = Place(gateway="http://127.0.0.1:1", key="k", again="")
    assert told.count("\n") == how_to_steer(local, ID).count("\n") == 3
    assert "--" not in how_to_steer(local, ID)


def test_somebody_who_is_away_is_asked_again() -> None:
    """A gateway that does not answer is asked again for a while; what it refuses is not."""
    answers: list[str | CommandFailed] = ["here", GatewayAway("away")]

    def ask() -> str:
        answer = answers.pop()
        if isinstance(answer, CommandFailed):
            raise answer
        return answer

    assert patiently(ask) == "here"
    answers.append(GatewayAway("away"))
    with pytest.raises(GatewayAway):
        patiently(ask, seconds=-1)
    answers[:] = ["here", CommandFailed("refused")]
    with pytest.raises(CommandFailed, match="refused"):
        patiently(ask)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["ls"], 1),
        (["ls", "--url", "http://127.0.0.1:1"], 2),
        (["show", "yesterday's"], 1),
        (["ls", "--limit", "0"], 2),
        (["discard", ID], 2),
        (["replay", "--mode", "loud"], 2),
        (["replay", "--stop-at", "0"], 2),
        (["jobs", "items", ID, "--only", "lost"], 2),
    ],
)
def test_words_that_do_not_fit(words: list[str], status: int, tmp_path: Path) -> None:
    """What is no option or no system fails before anything is asked."""
    where = [] if "--url" in words else ["--state", str(tmp_path)]
    done = CliRunner().invoke(app, ["dlq", *words, *where], env={"FAIRLEAD_OPERATOR_KEY": ""})
    failed = done.exception
    assert (failed.status if isinstance(failed, CommandFailed) else done.exit_code) == status


def test_ids_and_a_filter_are_not_mixed(tmp_path: Path) -> None:
    """Discarding takes either way to say which ones."""
    words = ["dlq", "discard", ID, "--where", "state=unanswered", "--reason", "no", "--state", str(tmp_path)]
    failed = CliRunner().invoke(app, words).exception
    assert isinstance(failed, CommandFailed)
    assert (failed.status, "either by --where" in str(failed)) == (2, True)
