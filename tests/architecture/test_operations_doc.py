"""What docs/operations.md tells operators is what there is."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cli.main import app
from infra.settings import Settings

COMMAND_LINE = {"FAIRLEAD_API_KEY", "FAIRLEAD_OPERATOR_KEY"}
"""Read by commands, not by processes."""

ROW = re.compile(r"^\| `(?P<name>FAIRLEAD_\w+)` \| (?:`(?P<default>[^`]+)`)? ?\| (?P<meaning>.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    """The page."""
    return (root / "docs" / "operations.md").read_text(encoding="utf-8")


def defaults() -> dict[str, str | None]:
    """Return each setting's variable and what it is without one; None where that is nothing, or a placeholder."""
    found: dict[str, str | None] = {}
    for name, field in Settings.model_fields.items():
        default: object = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        found[f"FAIRLEAD_{name.upper()}"] = None if default in (None, "", "-") else str(default)
    return found


def test_each_setting_has_its_row(page: str) -> None:
    """Every setting stands in the table once, with its default, and nothing stands there that is none."""
    rows = [(row["name"], row["default"]) for row in ROW.finditer(page)]
    assert len(rows) == len(dict(rows))
    assert dict(rows) == defaults()


def test_no_other_variable_is_named(page: str) -> None:
    """Every variable in the text is a setting, or one of the command line's own."""
    assert set(re.findall(r"FAIRLEAD_[A-Z_]+", page)) == defaults().keys() | COMMAND_LINE


def test_each_alert_is_explained(root: Path, page: str) -> None:
    """Every alert of the rules has a row that says what it means and what to do first, and no other has."""
    rules = (root / "infra" / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    alerts = page.partition("## Alerts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| [^|]{10,} \| [^|]{5,} \|$", alerts, re.MULTILINE)
    assert rows == re.findall(r"alert: (\w+)", rules)


def test_each_command_can_be_called(page: str) -> None:
    """Every `fairlead` command of the page exists, with the options shown."""
    examples = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    shown = re.findall(r"^fairlead ([^#\n]+)", examples, re.MULTILINE) + re.findall(r"`fairlead ([^`]+)`", page)
    assert len(shown) > 30
    for line in shown:
        words = line.split()
        command = [word for word in words[:3] if re.fullmatch(r"[a-z]+", word)]
        told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, line
        assert {word for word in words if word.startswith("--") and word not in plain(told.output)} == set(), line


def plain(text: str) -> str:
    """Return text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_each_number_is_counted(page: str) -> None:
    """Every metric the page sends its reader to is in the catalogue."""
    from infra.telemetry import metrics

    catalogue = Path(metrics.__file__).read_text(encoding="utf-8")
    for name in set(re.findall(r"`(fairlead_[a-z_]+)`", page)):
        assert f'"{name}"' in catalogue, name


def test_every_link_leads_somewhere(root: Path) -> None:
    """Relative links of the pages for clients and operators name files that exist."""
    for name in ("operations.md", "delivery.md", "limits.md"):
        text = (root / "docs" / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (root / "docs" / target).exists(), f"{name} links to {target}"
