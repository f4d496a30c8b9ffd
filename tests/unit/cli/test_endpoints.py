"""The file that says where everything is."""

from pathlib import Path

import pytest

from cli.endpoints import EndpointsFile, SimulatorEndpoints

_FOUND = EndpointsFile(
    gateway="http://127.0.0.1:8080",
    console="http://127.0.0.1:8080/console",
    api_key="fk",
    operator_key="ok",
    kafka="127.0.0.1:9092",
    redis="redis://127.0.0.1:6379/0",
    database="postgresql+asyncpg://fairlead:secret@127.0.0.1:5432/fairlead",
    simulators=SimulatorEndpoints(tgi="http://127.0.0.1:8081", openai="http://127.0.0.1:8082"),
    processes={"gateway": 1},
)


def test_reads_what_it_wrote_and_only_the_owner_may(tmp_path: Path) -> None:
    """The file comes back as it was, and nobody else can read the keys in it, however often it is written."""
    _FOUND.write(tmp_path)
    path = _FOUND.with_processes({"gateway": 2}).write(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert EndpointsFile.read(tmp_path) == _FOUND.with_processes({"gateway": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["endpoints.json"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file of another shape is named as such."""
    (tmp_path / "endpoints.json").write_text('{"gateway": "http://x"}')
    with pytest.raises(ValueError, match="not a file of this version"):
        EndpointsFile.read(tmp_path)
