"""A package's docstring is the table of contents of its folder."""

import ast
import re

import pytest

from .conftest import PRODUCT, ROOT

PACKAGES = sorted(path.parent for folder in PRODUCT for path in (ROOT / folder).rglob("__init__.py"))

WITHOUT_A_MAP: dict[str, str] = {}
"""Folders whose docstring need not name their modules, each with the reason."""


def contents(docstring: str) -> list[str]:
    """Return the names a docstring mentions in code type, in order, without repetition."""
    names = re.findall(r"`+(\w+)(?:\.py|/)?`+", docstring)
    return list(dict.fromkeys(names))


def listed(docstring: str) -> list[str]:
    """Return the names that begin an item of the docstring's list."""
    return re.findall(r"^- `+(\w+)(?:\.py|/)?`+", docstring, re.MULTILINE)


@pytest.mark.parametrize("package", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in PACKAGES])
def test_the_docstring_names_every_part(package: object) -> None:
    """Each module and each folder of a package is named in its docstring, and each listed name exists."""
    folder = ROOT / str(package)
    name = folder.relative_to(ROOT).as_posix()
    if name in WITHOUT_A_MAP:
        pytest.skip(WITHOUT_A_MAP[name])
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    parts = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    parts |= {path.parent.name for path in folder.glob("*/__init__.py")}
    others = {path.stem for path in folder.iterdir() if path.suffix not in {".py", ".pyc"}}

    assert parts - set(contents(docstring)) == set(), f"{name} does not say what these are"
    assert set(listed(docstring)) - parts - others == set(), f"{name} lists what is not there"
    assert len(listed(docstring)) == len(set(listed(docstring))), f"{name} lists something twice"


def test_the_map_is_read_as_written() -> None:
    """Names are found with and without suffix, in lists and in sentences, in their order."""
    docstring = "First ``zeta``, then:\n\n- `beta.py`: b\n- `alpha/`: a, after `beta`\n"
    assert contents(docstring) == ["zeta", "beta", "alpha"]
    assert listed(docstring) == ["beta", "alpha"]


def test_no_exception_outlives_its_folder() -> None:
    """A folder that is gone is gone from the exceptions as well."""
    assert all((ROOT / folder).is_dir() for folder in WITHOUT_A_MAP)
