"""A run's Ray is its own: no foreign cluster, a short private folder, and a start that can succeed. Whole runs, with their
sockets, token and priorities: tests/runs/test_ends.py. What happens to a run whose memory runs out can't be tried here
without taking the test machine's; the sentences for what Ray then raises are."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from Verl import REPO_ROOT
from Verl.adapter.device import Device
from Verl.errors import UserError
from Verl.trainer import own_ray


def config(nodes: int = 1):
    return SimpleNamespace(trainer=SimpleNamespace(nnodes=nodes))


@pytest.fixture
def environment(monkeypatch):
    """Variables as they were afterwards, whoever sets them."""
    before = dict(os.environ)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


def test_nobody_elses_cluster_is_joined(environment):
    for name in ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN"):
        environment.setenv(name, "10.0.0.1:6379")
    environment.setenv("no_proxy", "example.org")
    environment.setenv("RAY_AUTH_MODE", "disabled")
    own_ray.set_environment(config())
    assert not {"RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN"} & os.environ.keys()
    assert os.environ["no_proxy"] == "example.org,127.0.0.1,localhost" and os.environ["RAY_AUTH_MODE"] == "token"


def test_a_run_on_several_nodes_joins_the_cluster_it_is_given(environment):
    environment.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    environment.delenv("RAY_AUTH_MODE", raising=False)
    own_ray.set_environment(config(nodes=2))
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379" and "RAY_AUTH_MODE" not in os.environ


def test_a_long_folder_for_temporary_files_is_passed_over(environment, tmp_path):
    environment.delenv("RAY_TMPDIR", raising=False)
    environment.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    longest = max(len(os.fsencode(place)) for place in own_ray.places())
    session = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    assert longest + len(f"/{own_ray.PREFIX}12345678/ray/{session}") <= 107
    environment.setattr(tempfile, "tempdir", "/var/tmp")
    assert str(own_ray.places()[0]) == "/var/tmp"


def test_a_long_requested_folder_is_refused(environment, tmp_path):
    environment.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(UserError, match="RAY_TMPDIR"):
        own_ray.check_start(config())
    environment.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(UserError, match="RAY_TMPDIR"):
        own_ray._folder()


def test_what_killed_runs_left_behind_is_swept_and_nothing_else(environment):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        environment.setenv("RAY_TMPDIR", place)
        killed, fresh = (tempfile.mkdtemp(prefix=own_ray.PREFIX, dir=place) for _ in range(2))
        foreign = tempfile.mkdtemp(dir=place)
        going_on = own_ray._folder()
        long_ago = time.time() - 10_000
        for folder in (killed, foreign, going_on):
            os.utime(folder, (long_ago, long_ago))
        own_ray._sweep(own_ray.places()[0])
        assert [os.path.exists(one) for one in (killed, fresh, foreign, going_on)] == [False, True, True, True]
        own_ray.stop()
        assert not going_on.exists()


def made(folder):
    folder.mkdir()
    return folder


def settings_of_ray(**typed):
    return OmegaConf.create({"trainer": {"nnodes": 1, "n_gpus_per_node": 2}, "ray_kwargs": {"ray_init": typed}})


def test_what_a_user_gives_ray_goes_before_ours(environment, tmp_path):
    """Given twice, a setting was a TypeError."""
    given = {}
    environment.setattr("ray.init", lambda **options: given.update(options))
    folders = (tmp_path / name for name in ("first", "second"))
    environment.setattr(own_ray, "_folder", lambda: made(next(folders)))
    own_ray.start(settings_of_ray(), Device(), {"env_vars": {}})
    assert given["include_dashboard"] is False
    own_ray.start(settings_of_ray(include_dashboard=True, logging_level="info"), Device(), {"env_vars": {}})
    assert given["include_dashboard"] is True and given["logging_level"] == "info"


def test_a_worker_is_started_by_a_path_with_a_space_or_a_dollar(environment, tmp_path):
    """Ray puts py_executable into a line of bash as it is."""
    given = {}
    environment.setattr("ray.init", lambda **options: given.update(options))
    environment.setattr(sys, "executable", "/home/me/sp ace/d$HOME/.venv/bin/python")
    environment.setattr(own_ray, "_folder", lambda: tmp_path)
    own_ray.start(settings_of_ray(num_cpus=None), Device(), {"env_vars": {}})
    assert shlex.split(given["runtime_env"]["py_executable"]) == [sys.executable]
    assert given["address"] == "local" and given["_temp_dir"].startswith(str(tmp_path))


# A run's Ray and one worker of it.
ONE_WORKER = """
import json, os, sys
from omegaconf import OmegaConf
from Verl.adapter.device import Device
from Verl.trainer import own_ray

trainer = {"nnodes": 1, "n_gpus_per_node": 1}
options = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 10**8}
config = OmegaConf.create({"trainer": trainer, "ray_kwargs": {"ray_init": options}})
own_ray.set_environment(config)
own_ray.check_start(config)
try:
    own_ray.start(config, Device(), {"env_vars": {}})
    import ray

    @ray.remote
    def worker():
        return sys.executable, sys.prefix

    print(json.dumps([*ray.get(worker.remote(), timeout=240), str(own_ray.private_folder())]))
finally:
    own_ray.stop()
"""


@pytest.mark.slow
def test_ray_starts_a_worker_by_a_python_of_any_path_and_below_any_folder(tmp_path):
    """The environment's path has letters that a shell or a format string reads, TMPDIR is too long for a socket."""
    environment, long = tmp_path / "sp ace/d$HOME ü[x]{y}&z/env", tmp_path / ("long" * 20)
    (environment / "bin").mkdir(parents=True)
    long.mkdir()
    python = environment / "bin/python"
    python.symlink_to(Path(sys.executable).resolve())
    (environment / "lib").symlink_to(Path(sys.prefix) / "lib")
    (environment / "pyvenv.cfg").symlink_to(Path(sys.prefix) / "pyvenv.cfg")
    given = {key: value for key, value in os.environ.items() if key != "RAY_TMPDIR"}
    given |= {"TMPDIR": str(long), "PYTHONPATH": str(REPO_ROOT)}
    done = subprocess.run([python, "-c", ONE_WORKER], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    executable, prefix, folder = json.loads(done.stdout.splitlines()[-1])
    assert executable == str(python) and prefix == str(environment)
    assert not Path(folder).is_relative_to(long) and not Path(folder).exists() and not list(long.glob(f"{own_ray.PREFIX}*"))


def test_memory_above_rays_limit_is_said_at_once(environment):
    environment.setenv("RAY_memory_usage_threshold", "0.0001")
    with pytest.raises(UserError, match="RAY_memory_usage_threshold"):
        own_ray.check_start(config())


def test_a_quotation_mark_in_the_path_is_refused(environment):
    environment.setattr(own_ray.sys, "executable", "/home/o'brien/.venv/bin/python")
    with pytest.raises(UserError, match="BANDIT_VENV"):
        own_ray.check_start(config())


def test_a_worker_that_was_ended_from_outside_is_said_in_words():
    from ray.exceptions import OutOfMemoryError

    class ActorDiedError(Exception):  # Ray's own can only be made of messages of its core
        pass

    assert "memory ran out" in own_ray.why(OutOfMemoryError("Refer to the documentation"))
    assert "killed" in own_ray.why(ActorDiedError("Worker unexpectedly exits with a connection error code 2. End of file."))
    assert own_ray.why(ValueError("else")) is None
