"""Small promises about every file, kept by machine."""

import ast
import os
import re
from pathlib import Path

import pytest

from .conftest import ROOT, Module

READ_THE_ENVIRONMENT = {
    "infra/settings.py": "the one place for FAIRLEAD_*",
    "infra/crash_points.py": "no installation has such a setting",
    "infra/embedded/apache_kafka.py": "JAVA_HOME says where a foreign program is",
}
"""Modules outside the command line that may look at the environment, each with the reason."""

UNNAMED_IGNORES = re.compile(r"#\s*(?:type|pyright):\s*ignore(?!\[)|#\s*noqa(?!: [A-Z])", re.IGNORECASE)

PACKAGE_HOSTS = re.compile(
    r"(?:pypi|pythonhosted|npmjs|crates|rubygems)\.(?:org|io)\b|(?:repo1?\.maven|proxy\.golang)\.[a-z.]+|"
    r"--(?:extra-)?index-url\s+\S|find-links\s*=",
    re.IGNORECASE,
)

MACHINE_PATHS = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|workspace)/\w|[A-Z]:\\Users\\")

TOO_LARGE = 2_000_000


def _texts(paths: list[Path]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in paths:
        raw = path.read_bytes()
        if len(raw) < TOO_LARGE and b"\0" not in raw:
            texts[path.relative_to(ROOT).as_posix()] = raw.decode("utf-8", "replace")
    return texts


def _matching(pattern: re.Pattern[str], texts: dict[str, str]) -> dict[str, str]:
    found = {name: pattern.search(text) for name, text in texts.items()}
    return {name: match[0] for name, match in found.items() if match is not None}


def test_each_test_says_what_is_known(test_modules: list[Module]) -> None:
    """Every test function has a docstring that is one sentence."""
    silent: list[str] = []
    for module in test_modules:
        for function in module.functions():
            if not function.name.startswith("test_") or _is_fixture(function):
                continue
            said = ast.get_docstring(function) or ""
            if not said.endswith(".") or "\n\n" in said:
                silent.append(f"{module.name}:{function.name}")
    assert silent == []


def _is_fixture(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_each_ignore_names_its_rule(product: list[Module], test_modules: list[Module]) -> None:
    """No type or lint complaint is silenced wholesale."""
    sources = {module.name: module.source for module in product + test_modules}
    assert _matching(UNNAMED_IGNORES, sources) == {}


def test_no_file_names_a_package_host(tracked: list[Path]) -> None:
    """Where packages come from is the machine's affair; no tracked file says it."""
    texts = {name: text for name, text in _texts(tracked).items() if name != "tests/architecture/test_hygiene.py"}
    assert _matching(PACKAGE_HOSTS, texts) == {}
    hosts = [
        re.escape(match[1])
        for name, value in os.environ.items()
        if re.search(r"INDEX_URL|REGISTRY|PROXY|MIRROR|DEFAULT_INDEX", name, re.IGNORECASE)
        and (match := re.match(r"\w+://(?:[^@/]*@)?([\w.-]+)", value))
        and match[1] not in {"localhost", "127.0.0.1"}
    ]
    if hosts:
        assert _matching(re.compile("|".join(hosts)), texts) == {}


def test_no_file_names_a_place_on_this_machine(tracked: list[Path]) -> None:
    """No tracked file holds the path of a checkout or of somebody's home."""
    texts = _texts(tracked)
    assert _matching(MACHINE_PATHS, texts) == {}
    here = re.compile(rf"{re.escape(str(ROOT))}(?![\w-])")
    if len(ROOT.parts) > 2:
        assert _matching(here, texts) == {}


@pytest.mark.parametrize(
    ("comment", "caught"),
    [
        ("type: ignore", True),
        ("pyright: ignore", True),
        ("noqa", True),
        ("pyright: ignore[reportPrivateUsage] - why", False),
        ("noqa: S105 - why", False),
    ],
)
def test_the_ignore_rule_sees(comment: str, caught: bool) -> None:
    """Ignores without a rule's name are told from those with one."""
    assert (UNNAMED_IGNORES.search(f"x = 1  # {comment}") is not None) is caught


def test_one_place_reads_the_environment(product: list[Module]) -> None:
    """Only the settings, the command line and named exceptions look at environment variables."""
    readers = {module.name for module in product if not module.name.startswith("cli/") and _reads(module)}
    assert readers - READ_THE_ENVIRONMENT.keys() == set()


def _reads(module: Module) -> bool:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            return bool({"environ", "getenv"} & {alias.name for alias in node.names})
    return False
