"""The queue, with a trainer that takes no time: order, skipping, retries, locks, and the table of states."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from study_helpers import alive, calls, job, started, wait_for

from Verl.errors import UserError
from Verl.study.jobs import Table, finished, only_one
from Verl.study.places import LocalPlaces, Process
from Verl.study.runner import StudyRunner
from Verl.trainer import run_folder

ONE, EIGHT = "grpo_0032_1", "grpo_0032_8"


@pytest.fixture
def run_jobs(tmp_path, fake):
    """Runs jobs on the fake trainer; gives (all done, what was said)."""

    def run(*queue, environment=None, count=1):
        said: list[str] = []
        table = Table(tmp_path / "study_test.json", "test", "tiny_arith", list(queue))
        runner = StudyRunner(
            table, LocalPlaces(count), tmp_path, lambda one: [*fake, one.script, *one.overrides],
            environment or {}, said.append, poll=0.01, report=0.0,
        )  # fmt: skip
        return runner.run(), said

    return run


def grid(tmp_path: Path, seeds=(0, 1), **more):
    return [job(arm, seed, result_dir=tmp_path, **more) for seed in seeds for arm in (ONE, EIGHT)]


def states(tmp_path: Path) -> dict[str, str]:
    return {one["run"]: one["state"] for one in json.loads((tmp_path / "study_test.json").read_text())["runs"]}


def test_runs_go_in_order_one_at_a_time(tmp_path, run_jobs):
    queue = grid(tmp_path)
    assert run_jobs(*queue)[0]
    assert started(tmp_path) == [one.run for one in queue]
    # each ends before the next starts
    assert [call[0] for call in calls(tmp_path) if call[0] != "step"] == ["start", "end"] * 4
    assert set(states(tmp_path).values()) == {"done"}


def test_what_is_done_is_skipped_and_never_run_twice(tmp_path, run_jobs):
    assert run_jobs(*grid(tmp_path))[0]
    done, said = run_jobs(*grid(tmp_path))
    assert done and len(started(tmp_path)) == 4
    assert said[0] == "4 runs, 4 done already, 0 to do"


def test_more_steps_than_a_finished_run_has_are_run(tmp_path, run_jobs):
    assert run_jobs(job(ONE, steps=2, result_dir=tmp_path))[0]
    assert run_jobs(job(ONE, steps=4, result_dir=tmp_path))[0]
    assert [call[2] for call in calls(tmp_path) if call[0] == "start"] == ["0", "2"]


def test_a_run_that_fails_once_is_run_once_more_behind_the_others(tmp_path, run_jobs):
    queue = grid(tmp_path, seeds=(0,))
    done, said = run_jobs(*queue, environment={"FAKE_FAIL": f"{queue[0].run}:1"})
    assert done
    assert started(tmp_path) == [queue[0].run, queue[1].run, queue[0].run]
    assert any("failed (the disk is full); once more later" in line for line in said)


def test_a_run_that_fails_twice_is_given_up_and_the_others_go_on(tmp_path, run_jobs):
    queue = grid(tmp_path, seeds=(0,))
    done, said = run_jobs(*queue, environment={"FAKE_FAIL": f"{queue[0].run}:9"})
    assert not done
    assert started(tmp_path).count(queue[0].run) == 2
    assert states(tmp_path) == {queue[0].run: "failed", queue[1].run: "done"}
    table = json.loads((tmp_path / "study_test.json").read_text())
    assert table["runs"][0]["reason"] == "the disk is full" and table["runs"][0]["attempts"] == 2
    assert any("failed for good (the disk is full)" in line for line in said)


def test_bad_input_is_not_tried_again(tmp_path, run_jobs):
    bad = job(ONE, result_dir=tmp_path)
    bad.script = "x"
    bad.overrides = ["seed=0"]  # the fake trainer has no result folder then and ends with a traceback, status 1
    command = [sys.executable, "-c", "print('error: data.window_size=0 is too small'); raise SystemExit(2)"]
    table = Table(tmp_path / "study_test.json", "test", "tiny_arith", [bad])
    done = StudyRunner(table, LocalPlaces(1), tmp_path, lambda one: command, {}, lambda line: None, poll=0.01).run()
    assert not done and bad.attempts == 1 and bad.reason == "data.window_size=0 is too small"


def test_a_trainer_that_ends_well_without_a_finished_run_has_failed(tmp_path):
    one = job(ONE, result_dir=tmp_path)
    table = Table(tmp_path / "study_test.json", "test", "tiny_arith", [one])
    done = StudyRunner(table, LocalPlaces(1), tmp_path, lambda _: ["true"], {}, lambda line: None, poll=0.01).run()
    assert not done and one.attempts == 2 and "does not say finished" in one.reason


def test_a_run_of_another_process_is_waited_for_and_not_repeated(tmp_path, run_jobs, fake):
    one = job(ONE, result_dir=tmp_path)
    other = subprocess.Popen([*fake, one.script, *one.overrides], env={**os.environ, "FAKE_TOGETHER": "2"})
    while not calls(tmp_path):
        time.sleep(0.01)
    done, said = run_jobs(one, job(EIGHT, result_dir=tmp_path))
    assert other.wait() == 0 and done
    assert started(tmp_path) == [one.run, f"{EIGHT}_tiny_arith_seed0"]  # the queue went on meanwhile
    assert any("is going on in another process" in line for line in said)
    assert any("finished by another process" in line for line in said)


def test_several_places_are_used(tmp_path, run_jobs):
    assert run_jobs(*grid(tmp_path, steps=4), count=4, environment={"FAKE_TOGETHER": "4"})[0]
    events = [call[0] for call in calls(tmp_path)]
    assert events.index("end") > max(i for i, event in enumerate(events) if event == "start")


def test_time_left_is_estimated_from_the_runs_so_far(tmp_path, run_jobs):
    done, said = run_jobs(*grid(tmp_path, steps=3), environment={"FAKE_SECONDS": "0.05"})
    assert done and any("left" in line for line in said[2:-1])
    assert "left" not in said[-1]


def test_a_finished_run_with_another_budget_is_not_done(tmp_path):
    one = job(ONE, steps=10, result_dir=tmp_path, ends={"budget.hours": 2.0})
    (tmp_path / one.run).mkdir()
    (tmp_path / one.run / "run.json").write_text('{"status": "finished"}')
    (tmp_path / f"{one.run}.jsonl").write_text('{"step": 4}\n')
    config = tmp_path / one.run / "config.yaml"
    end = "trainer: {total_training_steps: null, total_epochs: null}\nbudget: {hours: %s}\n"
    one.ends |= dict.fromkeys(run_folder.ends_of(OmegaConf.create())) | {"budget.hours": 2.0}
    config.write_text(end % 1.0)
    assert not finished(tmp_path, one)
    config.write_text(end % 2.0)
    assert finished(tmp_path, one)


def test_one_runner_per_study(tmp_path):
    lock = tmp_path / ".study_x.lock"
    with only_one(lock, "x"), pytest.raises(UserError, match="the study x is going on"), only_one(lock, "x"):
        pass
    with only_one(lock, "x"), open(lock) as file, pytest.raises(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_and_its_children_end_with_it(tmp_path):
    script = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    console = tmp_path / "console"
    place = Process([sys.executable, "-c", script], {}, console)
    while not console.read_text().strip():
        time.sleep(0.02)
    child = int(console.read_text())
    place.stop()
    assert place.poll() is not None
    wait_for(lambda: not alive(child), seconds=10)
