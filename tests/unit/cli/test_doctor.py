"""What the doctor says of a model that agent processes would load themselves."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from cli import checks
from cli.system import Given
from infra.settings import Settings
from workers.providers.local_model import PACKAGES


async def test_a_local_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The doctor names the missing packages, or without any missing the missing files, and loads nothing."""
    settings = Settings(discovery_dialect="local", local_model=str(tmp_path), discovery_base_url="http://127.0.0.1:9")
    [found] = await checks.models(settings)
    absent = [name for name in PACKAGES if find_spec(name) is None]
    assert (found.name, found.state) == ("fine-tuned model", "fail")
    assert all(name in found.says for name in absent)
    assert ("install the extra 'local'" in found.says) is bool(absent)
    assert ("no model here" in found.says) is not absent
    assert "restart the agents" in found.mend


async def test_a_local_model_that_may_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With packages and files in place the doctor is content, and names the adapters."""
    for name in PACKAGES:
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    files = ("config.json", "model.safetensors", "discovery/adapter_config.json", "discovery/adapter_model.safetensors")
    for name in files:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).touch()
    place = tmp_path / "files"
    settings = Settings(discovery_dialect="local", local_model=str(place), local_adapters=place)
    [found] = await checks.models(settings)
    assert (found.state, found.says.endswith("adapters discovery")) == ("ok", True)


@pytest.mark.parametrize(("dialect", "given"), [("local", True), ("tgi", False), ("", False)])
def test_a_local_model_is_a_model(dialect: str, given: bool) -> None:
    """`fairlead up` simulates no model where the fine-tuned one is to be loaded here."""
    assert Given.of({"FAIRLEAD_DISCOVERY_DIALECT": dialect}).models is given
