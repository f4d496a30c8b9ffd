"""Errors that a command ends with: a sentence and an exit status."""

from infra.crash_points import UnknownCrashPoint
from infra.embedded.errors import EmbeddedError
from infra.policy import PolicyInvalid


class CommandFailed(Exception):
    """A command could not do what was asked. The message says why and what to do."""

    def __init__(self, sentence: str, *, status: int = 1) -> None:
        super().__init__(sentence)
        self.status: int = status


def sentence_of(error: Exception) -> CommandFailed | None:
    """Return the error as a command's ending; None for a surprise, which deserves its traceback."""
    from cli.supervisor import SupervisorError
    from infra.kafka.topics import TopicsNotCreated
    from infra.postgres.statements import LedgerUnavailable

    match error:
        case CommandFailed():
            return error
        case PolicyInvalid() | UnknownCrashPoint():
            return CommandFailed(str(error), status=2)
        case LedgerUnavailable():
            return CommandFailed(f"PostgreSQL does not answer ({error}). `fairlead doctor` says more.")
        case EmbeddedError() | SupervisorError() | TopicsNotCreated():
            return CommandFailed(str(error))
        case _:
            return None
