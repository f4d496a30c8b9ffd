"""What the architecture tests look at: the product's modules, and every file that is or will be tracked."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("schemas", "infra", "producers", "workers", "simulators", "cli", "training")


@dataclass(frozen=True)
class Module:
    """One Python file, parsed when first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """Return its path below the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def source(self) -> str:
        """Return its text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Return its syntax tree."""
        return ast.parse(self.source, self.name)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield every function and method in it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def product() -> list[Module]:
    """Every module of the product."""
    return [Module(path) for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def test_modules() -> list[Module]:
    """Every module of the tests."""
    return [Module(path) for path in sorted((ROOT / "tests").rglob("*.py"))]


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files belong to it")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]
