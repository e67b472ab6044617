"""`python -m Verl.doctor`: what would keep a run from starting is a STOP with a remedy, and the exit status says so."""

import os
import socket
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from Verl import doctor
from Verl.trainer import own_ray


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


def test_a_pair_that_is_none_is_said(machine, capsys):
    assert doctor.main(["--pair", "nope"]) == 1
    assert "--pair nope" in capsys.readouterr().out
