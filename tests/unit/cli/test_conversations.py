"""What `fairlead conversations` and `fairlead explain` say of people who take over."""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from cli.conversations import Kept, Taken, app, listed, told
from cli.explain import told as explained
from cli.operators import Place
from cli.sentence import sentence
from cli.story import KeptBy
from tests.unit.cli.test_explain import STEPS, call, path, story

SINCE = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (Kept(conversation_id="c1", keeper="agent"), "Agents answer c1."),
        (Kept(conversation_id="c1", keeper="agent", since=SINCE), "Agents answer c1 since 2026-01-02 03:00:00 UTC."),
        (
            Kept(conversation_id="c1", keeper="human", operator="Ann\x1b[31m", reason="asked", since=SINCE),
            "Ann\N{REPLACEMENT CHARACTER}[31m has c1 since 2026-01-02 03:00:00 UTC: asked.",
        ),
    ],
)
def test_who_answers_is_one_harmless_sentence(kept: Kept, expected: str) -> None:
    """The person, since when and why, without anything that commands the terminal."""
    assert told(kept) == expected


def test_a_turn_that_was_taken_over_says_what_became_of_its_model() -> None:
    """Whether a model had been asked is told, and that nothing of it was shown."""
    turn = story(
        "handed_off",
        reason="taken_over",
        attempts=[call(1, "discovery-slm", "abandoned", "taken_over")],
        events=path(*STEPS, "running", "preparing", "handed_off", note="taken_over"),
        timings={"done": 1.5},
    )
    assert sentence(turn) == (
        "A person took the conversation over while the fine-tuned model was asked; nothing of it was shown."
    )
    untouched = story("handed_off", reason="taken_over", timings={"done": 0.1}, agent=None, plan=None)
    assert sentence(untouched) == "Left to the person who had taken the conversation over; no model was asked."


def test_what_a_person_wrote_is_theirs() -> None:
    """The writer is named in the sentence and the header, and so is who has the conversation now, and why."""
    kept = KeptBy(keeper="human", operator="Ann", reason="asked", since=SINCE)
    turn = story("answered", source="human", said_by="Ann", agent=None, plan=None, kafka=None, kept_by=kept)
    screen = explained(turn, reveal=False, styled=False)
    assert sentence(turn).startswith("Written by Ann, a person who had the conversation; the visitor waited")
    assert "keeper        Ann, who took the conversation over at 2026-01-02 03:00:00.000 UTC: asked\n" in screen
    back = KeptBy(keeper="agent", since=SINCE)
    assert "keeper        agents again, since a person gave" in explained(
        turn.model_copy(update={"kept_by": back}), reveal=False, styled=False
    )


def test_conversations_that_people_have_are_listed_with_what_their_visitors_wait_for() -> None:
    """One line each, harmless to the terminal; nobody having any is said in a sentence."""
    assert listed([], styled=False) == "Agents answer every conversation.\n"
    taken = Taken(conversation_id="c1", operator="Ann\x1b[31m", reason="asked", since=SINCE, unanswered=2)
    assert listed([taken], styled=False) == (
        "  conversation  who       since, UTC           unanswered  why\n"
        "  c1            Ann\N{REPLACEMENT CHARACTER}[31m  2026-01-02 03:00:00  2           asked\n"
    )


def test_a_refused_message_says_why_and_that_no_model_was_asked() -> None:
    """What it was taken for, and by what that was seen."""
    turn = story("rejected", reason="spam", agent=None, plan=None, events=path("received", "rejected", note="4 links"))
    assert sentence(turn) == (
        "Refused as spam (4 links): no model was asked, and the visitor was told how to write it otherwise."
    )


class Forgetful(BaseHTTPRequestHandler):
    """Takes a message, and goes away before it has said so; the next time it answers."""

    keys: list[str | None]

    def do_POST(self) -> None:
        """Note the key, and answer from the second time on."""
        self.keys.append(self.headers["Idempotency-Key"])
        self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.keys) > 1:
            written = {"turn_id": "t1", "conversation_id": "c1", "events_url": "http://x"}
            self.send_response(202)
            self.end_headers()
            self.wfile.write(json.dumps(written).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Say nothing."""


def test_a_message_is_sent_again_under_its_name_when_nobody_knows_whether_it_arrived() -> None:
    """A gateway that went away in between gets the same key twice, so that the visitor reads the message once."""
    Forgetful.keys = []
    with HTTPServer(("127.0.0.1", 0), Forgetful) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = CliRunner().invoke(app, ["say", "c1", "Hello", "--url", url, "--key", "k"])
        server.shutdown()
    assert (done.exit_code, done.stdout) == (0, "Turn t1 says it, after what is open before it.\n")
    assert len(Forgetful.keys) == 2
    assert len(set(Forgetful.keys)) == 1
    assert Forgetful.keys[0]


class Listing(BaseHTTPRequestHandler):
    """Has five rows, and gives two at a time at most."""

    def do_GET(self) -> None:
        """Answer with the page that is asked for."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        begins = int(asked.get("after", "0"))
        ends = min(5, begins + min(2, int(asked["limit"])))
        self.send_response(200)
        self.end_headers()
        rows = [{"n": n} for n in range(begins, ends)]
        self.wfile.write(json.dumps({"rows": rows, "next": str(ends) if ends < 5 else None}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Say nothing."""


@pytest.mark.parametrize(("limit", "found", "more"), [(1, 1, True), (3, 3, True), (5, 5, False), (9, 5, False)])
def test_a_listing_is_asked_for_page_by_page(limit: int, found: int, more: bool) -> None:
    """No row is left out or asked for twice, and whether there are more is told."""
    with HTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = Place(gateway=f"http://127.0.0.1:{server.server_port}", key="k", again="")
        assert place.rows("/rows", "after", limit=limit) == ([{"n": n} for n in range(found)], more)
        server.shutdown()
