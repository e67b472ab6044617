"""Cores are those that this process may use; threads are checked before anything starts."""

import os
import subprocess
import sys

import pytest

from Verl import cores
from Verl.errors import UserError


def written(folder, **files: str):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


@pytest.mark.parametrize(
    "allowed, expected", [("max 100000", 16), ("350000 100000", 4), ("50000 100000", 1), ("junk", 16)]
)
def test_a_quota_of_a_container_counts(sixteen, tmp_path, allowed, expected):
    groups = written(tmp_path, cgroup="0::/\n", top__cpu_DOT_max=allowed)
    assert cores.usable(groups / "top", groups / "cgroup") == expected


def test_the_smallest_quota_on_the_way_up_counts(sixteen, tmp_path):
    written(
        tmp_path,
        cgroup="0::/job/step\n",
        top__job__step__cpu_DOT_max="max 100000",
        top__job__cpu_DOT_max="300000 100000",
    )
    assert cores.usable(tmp_path / "top", tmp_path / "cgroup") == 3


def test_the_older_cgroups_are_read_too(sixteen, tmp_path):
    written(tmp_path, cgroup="4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n", top__cpu__cpu_DOT_cfs_quota_us="200000",
            top__cpu__cpu_DOT_cfs_period_us="100000")  # fmt: skip
    assert cores.usable(tmp_path / "top", tmp_path / "cgroup") == 2


def test_no_cgroups_leave_the_affinity(sixteen, tmp_path):
    assert cores.usable(tmp_path / "none", tmp_path / "none") == 16


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_the_affinity_of_a_job_counts():
    narrowed = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    program = f"{narrowed}\nfrom Verl import cores; print(cores.usable())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("given", ["0", "-2", "two", "", "1.5", "²"])
def test_threads_that_are_no_number_are_refused(monkeypatch, given):
    monkeypatch.setenv("BANDIT_THREADS", given)
    with pytest.raises(UserError, match="BANDIT_THREADS"):
        cores.threads()
    monkeypatch.setenv("BANDIT_THREADS", "3")
    assert cores.threads() == 3
