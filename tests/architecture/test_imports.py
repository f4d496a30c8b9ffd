"""Dependencies point the way the contracts in pyproject.toml say."""

import subprocess
import sys
from pathlib import Path

from .conftest import PRODUCT, Module

FROM_A_CHECKOUT = {"training": "runs where its data is; what it writes is distributed"}
"""Packages that are in no distribution, each with the reason."""


def test_import_contracts_hold(root: Path) -> None:
    """Every import contract is kept by the code as it is."""
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_of_code_is_a_package(product: list[Module], root: Path) -> None:
    """No folder lacks its `__init__.py`: what is no package escapes the contracts and the distribution."""
    folders = {module.path.parent for module in product}
    missing = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert [folder.relative_to(root).as_posix() for folder in missing] == []


def test_every_package_is_distributed(root: Path) -> None:
    """Each top-level package is named in the contracts' roots and, if it serves anybody, in the build's list."""
    declared = (root / "pyproject.toml").read_text(encoding="utf-8")
    for folder in PRODUCT:
        assert (f'"{folder}*"' in declared) == (folder not in FROM_A_CHECKOUT), folder
        assert f'"{folder}"' in declared
