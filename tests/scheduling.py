"""Which tests run on the same worker of pytest-xdist: those that share a running system, or fill the machine with one.

By path, for the controller knows no more of a test: what `--dist loadgroup` does by a mark needs an attribute that
pytest 9.2 has no more, and then silently groups nothing.
"""

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

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

    def remove_node(self, node: WorkerController) -> str | None:
        """Give the work of a worker that died to the others, but for the test it died of: that one has failed.

        What is inherited hands that test on as well, and so to one new worker after another.
        """
        workload = self.assigned_work.pop(node)
        crashed = next((test for tests in workload.values() for test, done in tests.items() if not done), None)
        if crashed is None:
            return None
        for scope, tests in workload.items():
            if crashed in tests:
                tests[crashed] = True
            if not all(tests.values()):
                self.workqueue[scope] = tests
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
