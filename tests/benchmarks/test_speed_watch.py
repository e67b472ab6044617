"""What a contender's processes took of the cores."""

from types import SimpleNamespace

import psutil

from tests.benchmarks.speed.watch import TreeCPU


class Process:
    def __init__(self, pid: int, seconds: float, *below: "Process"):
        self.pid, self.took, self.below = pid, seconds, list(below)

    def children(self, recursive: bool) -> list["Process"]:
        return self.below

    def cpu_times(self):
        if self.took is None:
            raise psutil.NoSuchProcess(self.pid)
        return SimpleNamespace(user=self.took, system=0.5)


def test_a_child_that_has_ended_still_counts():
    child = Process(2, 3.0)
    root = Process(1, 1.0, child)
    cpu = TreeCPU(root)
    assert cpu.seconds() == 1.5 + 3.5
    root.took, child.took = 2.0, None  # ended between the list and the look
    assert cpu.seconds() == 2.5 + 3.5
    root.below.clear()
    assert cpu.seconds() == 2.5 + 3.5
