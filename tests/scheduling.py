"""Which tests run on the same worker of pytest-xdist: those that share a running system, or fill the machine with one.

By path, for the controller knows no more of a test: what `--dist loadgroup` does by a mark needs an attribute that
pytest 9.2 has no more, and then silently groups nothing.
"""

from xdist.scheduler import LoadScopeScheduling

_TOGETHER = {
    "tests/acceptance/test_outage.py": "outage",
    "tests/acceptance/": "acceptance",
    "tests/chaos/": "chaos",
}
"""The first that fits. Every other test goes to whoever is free."""


class Scheduling(LoadScopeScheduling):
    """Keeps together what belongs together; the largest groups first."""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for path, group in _TOGETHER.items() if nodeid.startswith(path)), nodeid)
