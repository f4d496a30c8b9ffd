"""What the runbooks tell whoever is woken is what there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from typer.testing import CliRunner

from cli.main import app
from infra.settings import Settings
from infra.telemetry import metrics
from schemas import names
from schemas.agents import Lane
from schemas.completions import ProviderError
from schemas.dead_letters import DeadLetterReason, DeadLetterState
from schemas.letter_filter import parse_filter
from schemas.policy import Policy
from schemas.turns import TurnState
from workers.orchestrator.classifier import UNKNOWN_WORDS
from workers.orchestrator.routing import NOT_LOADED, NOT_SERVED, SKIPPED

from .conftest import Module

HEADINGS = ["What it means", "How to see it", "What to do now", "What happens by itself", "Afterwards"]

OUTAGES = {
    "kafka",
    "postgresql",
    "redis",
    "fine-tuned-model",
    "frontier",
    "both-models",
    "lane-workers",
    "orchestrator",
    "dead-letter-worker",
    "upkeep",
    "disk-full",
}

GROUPS = {"dlq", "serve", "breakers"}
"""Commands that have commands."""

TOOLS = {"curl", "df", "kafka-consumer-groups.sh", "redis-cli"}
"""Programs of others that pages call."""

FOREIGN = {"max.message.bytes", "retention.ms"}
"""Settings of Kafka's topics."""

OTHER_NAMES = {"outbox_id", "ce_id", "first_token", "without_answer", "max_connections"}
"""A key of a log line, a header, the policy's keys that stand without their section, a setting of PostgreSQL."""

UNDECIDED = {NOT_LOADED, NOT_SERVED, SKIPPED, UNKNOWN_WORDS}
"""Reasons of a router that could not decide, beside those of model calls."""

FLAGS = re.MULTILINE | re.DOTALL


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    """Each page by its name, without the index."""
    folder = root / "docs" / "runbooks"
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md") if path.stem != "README"}


@pytest.fixture(scope="module")
def alerts(root: Path) -> dict[str, dict[str, str]]:
    """Each alert's annotations."""
    rules = yaml.safe_load((root / "infra/deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule["annotations"] for group in rules["groups"] for rule in group["rules"]}


def events(product: list[Module]) -> set[str]:
    """Return every name that a log line of the product is written under."""
    return {
        node.args[0].value
        for module in product
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"info", "warning", "error", "exception"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def codes(of: type[ProviderError] = ProviderError) -> Iterator[str]:
    """Yield the code of each way in which a model call fails."""
    yield of.code
    for narrower in of.__subclasses__():
        yield from codes(narrower)


def commands(text: str) -> Iterator[str]:
    """Yield every `fairlead` command of a page, without a remark behind it."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            yield line.partition(" #")[0].strip()
    yield from re.findall(r"`(fairlead [a-z][^`]*)`", text.replace("\n   ", " ").replace("\n", " "))


def help_of(command: list[str]) -> str | None:
    """Return what the command line says of a command; None where it has none."""
    told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    return re.sub(r"\x1b\[[0-9;]*m", "", told.output) if told.exit_code == 0 else None


def path_of(words: list[str]) -> list[str]:
    """Return the words of a line that are the command itself: up to three in groups of commands, else one."""
    deep = 3 if words[:2] == ["dlq", "jobs"] else 2 if words[0] in GROUPS else 1
    return words[:deep]


def series() -> set[str]:
    """Return the name of every time series that is served."""
    served = {"up"}
    for value in vars(metrics).values():
        if isinstance(value, Counter | Gauge | Histogram):
            [family] = value.describe()
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            served |= {family.name + end for end in ends}
    return served


def test_each_alert_and_each_outage_has_its_page(pages: dict[str, str], alerts: dict[str, dict[str, str]]) -> None:
    """Every alert names its page, every outage has one, and there are no other pages."""
    assert pages.keys() == alerts.keys() | OUTAGES
    for alert, annotations in alerts.items():
        assert annotations["runbook"] == f"docs/runbooks/{alert}.md"
        assert pages[alert].startswith(f"# {alert}\n")


def test_each_page_has_the_same_headings(pages: dict[str, str]) -> None:
    """Every page has the five headings in their order, and something under each."""
    for page, text in pages.items():
        parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
        assert [part.partition("\n")[0] for part in parts] == HEADINGS, page
        assert all(part.partition("\n")[2].strip() for part in parts), page


def test_each_page_is_found(root: Path, pages: dict[str, str]) -> None:
    """The index leads to every page, and each link of index and pages leads somewhere."""
    folder = root / "docs" / "runbooks"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert {f"{page}.md" for page in pages} <= set(re.findall(r"\]\(([^)]+)\)", index))
    for text in [index, *pages.values()]:
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / target).is_file(), target


def test_each_command_can_be_called(pages: dict[str, str]) -> None:
    """Every command that a page shows exists; a lane named is a lane."""
    shown = {(page, line) for page, text in pages.items() for line in commands(text)}
    assert len(shown) > 100
    for page, line in shown:
        program, *words = line.split()
        if program != "fairlead":
            assert program in TOOLS, f"{page}: {line}"
            continue
        told = help_of(path_of(words))
        assert told is not None, f"{page}: {line}"
        assert {word for word in words if word.startswith("--") and word not in told} == set(), f"{page}: {line}"
        if "--lane" in words:
            assert words[words.index("--lane") + 1] in set(Lane), f"{page}: {line}"


def test_each_filter_chooses_something(pages: dict[str, str]) -> None:
    """Every filter on the pages is one: its fields, reasons, states and stages exist."""
    filters = [found for text in pages.values() for found in re.findall(r'--where\s+"([^"]+)"', text)]
    assert len(filters) > 20
    for one in filters:
        parse_filter(one)


def test_each_number_is_counted(pages: dict[str, str]) -> None:
    """Every metric of a page is served under that name, and brackets of queries are balanced."""
    served = series()
    for page, text in pages.items():
        for name in re.findall(r"\bfairlead_[a-z_]+", text):
            assert name in served, f"{page}: {name}"
        for query in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
            assert all(query.count(opening) == query.count(closing) for opening, closing in ("()", "[]", "{}")), page


def test_each_name_is_one_of_ours(pages: dict[str, str], product: list[Module]) -> None:
    """Whatever a page names with underscores is a log line's name, a reason, a state or a failure that exists."""
    known = events(product) | set(DeadLetterReason) | set(DeadLetterState) | set(TurnState) | set(codes()) | UNDECIDED
    for page, text in pages.items():
        for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text):
            assert name in known | series() | OTHER_NAMES, f"{page}: {name}"


def test_each_log_line_is_written(pages: dict[str, str], product: list[Module]) -> None:
    """Under the heading that says how to see it, the sentences on log lines name such that the code writes."""
    written = events(product)
    for page, text in pages.items():
        seen = text.partition("## How to see it")[2].partition("\n## ")[0]
        for sentences in re.findall(r"^(?:Log lines|Its last log lines)[^:]*:(.*?)(?:\n\n|\Z)", seen, FLAGS):
            named = set(re.findall(r"`([a-z_]+)`", sentences))
            assert named & written, page
            assert named - written - set(codes()) - set(TurnState) - OTHER_NAMES == set(), page


def test_each_key_of_the_policy_exists(pages: dict[str, str]) -> None:
    """Every dotted name on the pages is a key of the policy, a lane, a topic or a group."""
    spelled = {value for value in vars(names).values() if isinstance(value, str)}
    known = spelled | {lane.value for lane in Lane} | FOREIGN | set(TOOLS)
    for section, field in Policy.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        known |= {f"{section}.{key}" for key in inner}
    for page, text in pages.items():
        for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)`", text):
            assert name in known or name.endswith((".md", ".yml", ".yaml")), f"{page}: {name}"


def test_each_setting_exists(root: Path, pages: dict[str, str]) -> None:
    """Every variable on the pages is a setting, or the command line's own."""
    index = (root / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    known = {f"FAIRLEAD_{name.upper()}" for name in Settings.model_fields} | {"FAIRLEAD_OPERATOR_KEY"}
    assert set(re.findall(r"FAIRLEAD_[A-Z_]+", " ".join([index, *pages.values()]))) <= known
