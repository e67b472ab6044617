"""What all tests share: verl sees the CPU platform, and no test writes outside its temporary folder."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports verl: what Verl/cpu/device.py sets for a run on a CPU.
if (ROOT / "Verl" / "cpu").is_dir():
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "Verl.cpu.plugin")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# One thread a process, here and in the runs that tests start: several files are tested at a time, and threads that wait for
# their turn spin.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "BANDIT_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tiny_pair() -> None:
    """The embedded model and its data, prepared as a run does on first use: a fresh clone has neither."""
    from Verl.trainer import preparation, settings

    assert preparation.prepare(settings.compose("grpo", ["model=tiny", "data=arith", "trainer.device=cpu"])) == 0


LONGEST = ("test_effect.py", "test_host.py")  # minutes each


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes: files with slow tests come first, the longest of them before the others, so that the last minutes are
    not one process's alone."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in slow, item.path.name not in LONGEST))
