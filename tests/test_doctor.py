"""`python -m Verl.doctor`: what would keep a run from starting is a STOP with a remedy, and the exit status says so."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from Verl import REPO_ROOT, doctor
from Verl.trainer import memory_here, own_ray


@pytest.fixture
def machine(monkeypatch):
    """A machine on which a run can start, whose Hub does not answer: no network in a test."""
    monkeypatch.setattr(doctor, "_no_answer", lambda address: "no network")
    for name in ("RAY_TMPDIR", "RAY_ADDRESS", "BANDIT_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def stops(look) -> list[str]:
    found = list(look())
    assert all(one.remedy for one in found if one.level != doctor.OK)
    return [one.about for one in found if one.level == doctor.STOP]


def test_here_a_run_can_start_and_a_missing_hub_is_no_hindrance(machine, capsys):
    assert doctor.main(["--pair", "tiny_arith"]) == 0
    said = capsys.readouterr().out
    assert "a run can start here" in said and "does not answer (no network)" in said
    for about in ("Python", "packages", "GPU", "memory", "disk", "/dev/shm", "locks", "ports", "Hub", "threads"):
        assert f" {about} " in said


@pytest.mark.parametrize(
    "variable, value, about",
    [("BANDIT_THREADS", "many", "threads"), ("RAY_TMPDIR", "/tmp/" + "long" * 30, "ports"),
     ("RAY_memory_usage_threshold", "0.0001", "memory")],
)  # fmt: skip
def test_what_would_stop_a_run_is_reported_with_a_remedy(machine, capsys, variable, value, about):
    machine.setenv(variable, value)
    assert doctor.main([]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("STOP"))
    assert about in line and "->" not in line


def test_packages_are_held_against_the_pins(machine):
    assert {"verl", "ray", "torch"} <= {one.name for one in doctor.pins(["requirements-common.txt", "requirements.txt"])}
    machine.setattr(doctor, "pins", lambda files: [Requirement("verl==0.0.1"), Requirement("pytest>=1")])
    assert stops(doctor.packages) == ["packages"]
    machine.setattr(doctor, "pins", lambda files: [Requirement("no-such-package==1")])
    assert stops(doctor.packages) == []  # a note: no run imports it
    machine.setattr(doctor, "pins", lambda files: [Requirement("pytest>=1")])
    assert [one.level for one in doctor.packages()] == [doctor.OK]


def test_another_python_is_a_stop(machine):
    machine.setattr(doctor.sys, "version_info", (3, 13, 0))
    assert stops(doctor.python) == ["Python"]


def test_no_room_is_a_stop(machine):
    machine.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**8))
    assert set(stops(doctor.disk)) == {"disk"}
    assert stops(doctor.shared_memory) == []  # slower, no more


def test_a_loopback_that_is_missing_is_a_stop(machine):
    def refuse(*args, **kwargs):
        raise OSError("no such device")

    machine.setattr(socket, "create_server", refuse)
    assert stops(doctor.ports) == ["ports"]


def test_a_path_through_which_ray_starts_no_worker_is_a_stop(machine):
    machine.setattr(doctor.sys, "executable", "/o'brien/python")
    assert stops(doctor.start) == ["path"]
    with pytest.raises(doctor.UserError):
        own_ray.check_start(SimpleNamespace(trainer=SimpleNamespace(nnodes=1)))


def test_a_look_that_fails_leaves_the_others(machine, capsys):
    def fails():
        raise RuntimeError("odd")

    machine.setattr(os, "getloadavg", fails)
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "odd" in said and "a run can start here" in said


def test_before_the_set_up_it_names_what_is_missing_and_setup_sh():
    """By a Python without packages: what `python3 -m Verl.doctor` is after a clone."""
    command = [sys.executable, "-S", "-m", "Verl.doctor"]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "psutil" in done.stderr and "setup.sh" in done.stderr


def said(look) -> list[tuple[str, str]]:
    found = list(look())
    assert all(one.remedy for one in found if one.level != doctor.OK)
    return [(one.level, one.text) for one in found]


@pytest.fixture
def gpus(machine, tmp_path):
    """Makes a machine with so many GPUs, seen by this process or not, of a size or silent, with a driver of a version."""
    machine.setattr(doctor, "Path", lambda path: tmp_path / path.lstrip("/"))

    def make(count: int, seen: bool = True, gib: float | None = 80.0, driver: str | None = "570.86.10"):
        (tmp_path / "dev").mkdir()
        for number in range(count):
            (tmp_path / f"dev/nvidia{number}").touch()
        if driver:
            version = tmp_path / "proc/driver/nvidia/version"
            version.parent.mkdir(parents=True)
            version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue Jan 1\nGCC version: 12.2.0\n")
        machine.setattr(doctor.settings, "gpu_present", lambda: seen and count > 0)
        machine.setattr(doctor, "gpu_gib", lambda: gib)
        return said(doctor.gpu)

    return make


@pytest.mark.parametrize(
    "given, level, words",
    [({"count": 0}, doctor.OK, "CPU"), ({"count": 2, "seen": False}, doctor.NOTE, "CUDA_VISIBLE_DEVICES"),
     ({"count": 1, "gib": None}, doctor.STOP, "nvidia-smi"), ({"count": 2}, doctor.OK, "2 with at least 80 GiB"),
     ({"count": 1, "driver": "535.183.01"}, doctor.NOTE, "535.183.01"), ({"count": 1, "driver": None}, doctor.OK, "unknown")],
)  # fmt: skip
def test_a_gpu_is_looked_at(gpus, given, level, words):
    [(found, text)] = gpus(**given)
    assert found == level and words in text


@pytest.mark.parametrize("gib, level", [(None, doctor.OK), (80.0, doctor.OK), (4.0, doctor.STOP)])
def test_a_gpu_pair_is_held_against_the_plan(machine, gib, level):
    """Against the GPU that is here, and without one against the first machine of study.yaml."""
    machine.setattr(memory_here, "gpu_gib", lambda: gib)
    machine.setattr(own_ray, "memory_used", lambda: 0.1)
    (_, _), (found, text) = said(lambda: doctor.memory("qwen0.5b_gsm"))
    assert found == level and "GiB" in text and ("the GPU here" in text) == (gib is not None)


@pytest.mark.parametrize("used, level", [(0.0, doctor.OK), (0.94, doctor.NOTE)])
def test_a_cpu_pair_is_held_against_what_was_measured(machine, used, level):
    machine.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(total=32e9))
    machine.setattr(own_ray, "memory_used", lambda: used)
    (_, _), (found, text) = said(lambda: doctor.memory("smollm135m_gsm"))
    assert found == level and "GB are free" in text


@pytest.fixture
def results(machine, tmp_path):
    """A repository of its own, with the locks of two runs."""
    for name in ("RESULT_DIR", "REPO_ROOT"):
        machine.setattr(doctor, name, tmp_path)
    machine.setattr(doctor.psutil, "process_iter", lambda names: iter(()))
    for run in ("one", "two"):
        (tmp_path / f".{run}_seed0.lock").touch()
    return tmp_path


def test_a_run_that_goes_on_is_named_and_a_lock_file_alone_is_none(results):
    assert [level for level, _ in said(doctor.locks)] == [doctor.OK]
    with open(results / ".one_seed0.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        [(level, text)] = said(doctor.locks)
    assert level == doctor.NOTE and "one_seed0" in text and "two_seed0" not in text


def test_a_lock_of_another_users_is_a_stop(results, machine):
    theirs = results / ".two_seed0.lock"
    machine.setattr(os, "access", lambda path, mode: Path(path) != theirs)
    [(level, text)] = said(doctor.locks)
    assert level == doctor.STOP and str(theirs) in text


def test_processes_of_a_killed_run_are_listed_and_those_of_others_are_not(results, machine):
    places = [results / f"{own_ray.PREFIX}{kind}" for kind in ("killed", "going", "theirs")]
    for place in places:
        place.mkdir()
        (place / own_ray.LOCK).touch()
    processes = [
        SimpleNamespace(info={"pid": 100 + number, "environ": {"RAY_AUTH_TOKEN_PATH": f"{place}/token"},
                              "uids": SimpleNamespace(real=os.getuid() + (place.name == f"{own_ray.PREFIX}theirs"))})
        for number, place in enumerate(places)
    ]  # fmt: skip
    processes.append(SimpleNamespace(info={"pid": 200, "environ": None, "uids": None}))  # of a process that has just ended
    machine.setattr(doctor.psutil, "process_iter", lambda names: iter(processes))
    with open(places[1] / own_ray.LOCK) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        [(_, _), (level, text)] = said(doctor.locks)
    assert level == doctor.NOTE and [pid in text for pid in ("100", "101", "102", "200")] == [True, False, False, False]


def test_a_pair_that_is_none_is_said(machine, capsys):
    assert doctor.main(["--pair", "nope"]) == 1
    assert "--pair nope" in capsys.readouterr().out
