"""The environment of a run's workers, set before they start."""

import os
import subprocess
import sys

from Verl.cpu import device

# Page faults per page of a tensor of 40 MB that is made, filled and freed again and again, once that has gone on for a while.
FAULTS = """
import resource, torch
torch.set_num_threads(1)
def once():
    torch.empty(10_000_000).fill_(1.0)
for _ in range(20):  # until its places in memory have settled
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10 / (40_000_000 / resource.getpagesize()))
"""


def faults(settings: dict[str, str]) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_freed_memory_is_kept_for_the_next_pass():
    settings = device.keep_freed_memory()
    if not settings:  # no glibc: nothing is set
        return
    kept, given_back = faults(settings), faults({})
    assert kept < 0.01
    if settings["MALLOC_MMAP_THRESHOLD_"] == str(2**30):
        assert given_back > 10 * max(kept, 0.001)


def test_a_malloc_that_refuses_is_left_alone(monkeypatch):
    class Old:
        @staticmethod
        def mallopt(option, size):
            return int(size <= 2**25)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Old)
    assert device.keep_freed_memory()["MALLOC_MMAP_THRESHOLD_"] == str(2**25)
    monkeypatch.setattr(Old, "mallopt", staticmethod(lambda option, size: 0))
    assert device.keep_freed_memory() == {}
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert device.keep_freed_memory() == {}
