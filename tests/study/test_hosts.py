"""Runs that share a process: what each finds, and what is left of the others when one of them dies. No training here;
tests/runs/test_host.py trains."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_helpers import alive, calls, job, started, wait_for

from Verl.design.declared import BASH
from Verl.study import hosts as hosts_module
from Verl.study import study_cli
from Verl.study.hosts import HostedPlaces
from Verl.study.jobs import Table
from Verl.study.runner import StudyRunner

ONE, EIGHT = "grpo_0032_1", "grpo_0032_8"
HOST = (sys.executable, str(Path(__file__).with_name("fake_host.py")))


@pytest.fixture
def places(request):
    said: list[str] = []
    places = HostedPlaces(1, said.append, HOST)
    places.said = said
    yield places
    places.close()


def run_jobs(places, tmp_path, *queue, environment=None):
    table = Table(tmp_path / "study_test.json", "test", "tiny_arith", list(queue))
    runner = StudyRunner(
        table, places, tmp_path, lambda one: ["bash", str(BASH / one.script), *one.overrides], environment or {},
        places.said.append, poll=0.02,
    )  # fmt: skip
    return runner.run()


def hosts(tmp_path) -> list[str]:
    """The process of each run that was started, in order."""
    return [call[3] for call in calls(tmp_path) if call[0] == "found"]


def test_runs_share_a_process_and_find_it_as_it_was(tmp_path, places):
    queue = [job(arm, seed, result_dir=tmp_path) for seed in (0, 1) for arm in (ONE, EIGHT)]
    assert run_jobs(places, tmp_path, *queue)
    assert len(set(hosts(tmp_path))) == 1 and started(tmp_path) == [one.run for one in queue]
    for one in queue:
        found = json.loads((tmp_path / f"{one.run}.found").read_text())
        assert found["argv"][-3:] == one.overrides and found["argv"][0] == "model=tiny"
        assert "LEFT_BY_A_RUN" not in found["variables"] and found["by"] is None and found["input"] == ""
        assert found["variables"]["BANDIT_COMMAND"] == f"bash Running-Bash/{one.script} {' '.join(one.overrides)}"
        assert found["variables"]["BANDIT_CWD"] == os.getcwd()
        console = tmp_path / "study_test" / f"{one.run}.console"
        assert console.read_text() == f"said by {one.run} in {BASH.parent}\n"
    process = int(hosts(tmp_path)[0])
    assert alive(process)
    places.close()
    assert not alive(process)


@pytest.mark.parametrize(("how", "reason"), [("1", "the disk is full"), ("kill", "killed by signal 9")])
def test_a_run_that_dies_takes_its_host_with_it_and_nothing_else(tmp_path, places, how, reason):
    queue = [job(ONE, seed, result_dir=tmp_path) for seed in (0, 1, 2)]
    assert not run_jobs(places, tmp_path, *queue, environment={"FAKE_END": f"{queue[1].run}:{how}"})
    first, second, third, again = hosts(tmp_path)
    assert first == second and len({second, third, again}) == 2 and third == again
    states = {one["run"]: one for one in json.loads((tmp_path / "study_test.json").read_text())["runs"]}
    assert [one["state"] for one in states.values()] == ["done", "failed", "done"]
    assert states[queue[1].run]["reason"] == reason
    assert sum("its host ended with it" in line for line in places.said) == 2


def test_another_environment_is_another_host(tmp_path, places):
    assert run_jobs(places, tmp_path, job(ONE, 0, result_dir=tmp_path))
    assert run_jobs(places, tmp_path, job(ONE, 1, result_dir=tmp_path), environment={"BANDIT_THREADS": "3"})
    assert len(set(hosts(tmp_path))) == 2 and not alive(int(hosts(tmp_path)[0]))


STUDY = """
import sys
from pathlib import Path
from study_helpers import job
from test_hosts import HOST, run_jobs
from Verl.signals import raise_on_stop
from Verl.study import hosts as hosts_module
from Verl.study import study_cli
from Verl.study.hosts import HostedPlaces
raise_on_stop()
folder = Path(sys.argv[1])
places = HostedPlaces(2, print, HOST)
places.said = []
run_jobs(places, folder, *[job("grpo_0032_1", seed, steps=200, result_dir=folder) for seed in (0, 1)])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_host_outlives_its_runner(tmp_path, how):
    environment = {**os.environ, "FAKE_SECONDS": "0.1", "PYTHONPATH": f"{BASH.parent}:{Path(__file__).parent}"}
    runner = subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: len({call[3] for call in calls(tmp_path) if call[0] == "step"}) == 2)
    runner.send_signal(how)
    runner.wait(30)
    wait_for(lambda: not any(alive(int(process)) for process in hosts(tmp_path)))
    if how == signal.SIGTERM:
        records = [json.loads(path.read_text()) for path in tmp_path.glob("*/run.json")]
        assert [record["status"] for record in records] == ["interrupted"] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--ray"], "--ray starts runs on a cluster"), (["--", "actor_rollout_ref.rollout.name=vllm"], "can't share processes")],
)
def test_a_host_that_no_run_would_use_is_refused(more, said, capsys):
    command = ["--pair", "qwen0.5b_gsm", "--arms", "grpo_0032_1", "--seeds", "0", "--dry-run", "--host", *more]
    assert study_cli.main(command) == 2
    assert said in capsys.readouterr().err


def test_runs_share_processes_where_all_of_them_can(monkeypatch):
    monkeypatch.setattr(hosts_module, "can_share", lambda config: config == "can")

    def hosted(*configs, host=None, ray=None, command=None):
        chosen = [SimpleNamespace(arm=str(i), prepared=SimpleNamespace(config=config)) for i, config in enumerate(configs)]
        return study_cli._hosted(SimpleNamespace(host=host, ray=ray, command=command), chosen)

    can, can_not = "can", "can not"
    assert hosted(can, can) and not hosted(can, can_not)
    assert not hosted(can, host=False) and not hosted(can, ray="auto") and not hosted(can, command=["true"])
    assert hosted(can, host=True)
