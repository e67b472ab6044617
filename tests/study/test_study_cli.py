"""run_study.sh as a user meets it: slips, and kill -9 in the middle of a study."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_helpers import alive, calls, started, wait_for

from Verl.study import study_cli

STUDY = ["--pair", "tiny_arith", "--arms", "grpo_0032_1", "grpo_0032_8"]


def command(tmp_path: Path, fake: list[str], *more: str) -> list[str]:
    shared = ["--result", str(tmp_path), "--command", shlex.join(fake), "--poll", "0.02"]
    return [sys.executable, "-m", "Verl.study.study_cli", *STUDY, *shared, *more]


def lines_of(tmp_path: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in tmp_path.glob("*.jsonl")}


@pytest.mark.slow
def test_kill_9_in_the_middle_changes_nothing(tmp_path, fake):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "FAKE_SECONDS": "0.1"}
    arguments = ["--seeds", "0", "1", "--steps", "6"]
    runner = subprocess.Popen(command(killed, fake, *arguments), env=environment)
    wait_for(lambda: len(started(killed)) == 2 and len(calls(killed)) > 9)
    trainer = int(calls(killed)[-1][3])
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    wait_for(lambda: not alive(trainer))
    before = len(calls(killed))
    time.sleep(0.5)
    assert len(calls(killed)) == before, "a trainer survived its runner"

    assert subprocess.run(command(killed, fake, *arguments)).returncode == 0
    assert subprocess.run(command(whole, fake, *arguments)).returncode == 0
    assert lines_of(killed) == lines_of(whole) and len(lines_of(whole)) == 4
    runs = started(killed)
    assert len(runs) == 5 and len(set(runs)) == 4  # only the one that was cut was started twice
    resumed = [call for call in calls(killed) if call[:2] == ["start", runs[1]]]
    assert int(resumed[1][2]) > 0  # and went on where it was
    table = json.loads((killed / "study_tiny_arith.json").read_text())
    assert [run["state"] for run in table["runs"]] == ["done"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_study_stops_its_runs_and_says_so_in_their_records(tmp_path, fake, how):
    """Also where a shell started it with SIGINT ignored, as with `&`; the fake trainer dies without a word."""
    environment = {**os.environ, "FAKE_SECONDS": "0.5"}
    arguments = command(tmp_path, fake, "--seeds", "0", "--steps", "50", "--jobs", "2")
    runner = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    wait_for(lambda: sum(call[0] == "step" for call in calls(tmp_path)) > 1)
    runner.send_signal(how)
    said, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130 and "interrupted" in said
    assert not any(alive(int(call[3])) for call in calls(tmp_path))
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/run.json")]
    assert [record["status"] for record in records] == ["interrupted"] * 2


def test_arms_and_seeds_make_the_queue_and_failure_the_status(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAIL", "grpo_0032_1_tiny_arith_seed3:9")
    shared = ["--result", str(tmp_path), "--command", shlex.join(fake), "--poll", "0.02", "--steps", "5"]
    assert study_cli.main([*STUDY, "--seeds", "3", "5", "3", *shared]) == 1
    runs = [run["run"] for run in json.loads((tmp_path / "study_tiny_arith.json").read_text())["runs"]]
    assert runs == [f"{arm}_tiny_arith_seed{seed}" for seed in (3, 5) for arm in ("grpo_0032_1", "grpo_0032_8")]
    said = capsys.readouterr().out
    assert "3 of 4 runs done" in said and "failed: grpo_0032_1 seed 3: the disk is full" in said
    monkeypatch.delenv("FAKE_FAIL")
    assert study_cli.main([*STUDY, "--seeds", "3", "5", *shared]) == 0
    assert len(started(tmp_path)) == 6  # four, one retry, one after the fix


def test_overrides_that_make_one_arm_of_two_run_it_once(tmp_path, fake):
    shared = ["--result", str(tmp_path), "--command", shlex.join(fake), "--poll", "0.02", "--steps", "1"]
    assert study_cli.main([*STUDY, "--seeds", "0", *shared, "--dry-run", "--", "actor_rollout_ref.rollout.n=4"]) == 0
    options = study_cli._parser().parse_args([*STUDY, *shared, "--seeds", "0", "--", "actor_rollout_ref.rollout.n=4"])
    study = study_cli.design.load()
    queue = study_cli._queue(study, study.pair("tiny_arith"), options, tmp_path)
    assert [job.run for job in queue] == ["grpo_0032_4_tiny_arith_seed0"]


def test_commands_published_with_cells_still_run():
    old = ["--cells" if text == "--arms" else text for text in STUDY]
    assert study_cli._parser().parse_args(old) == study_cli._parser().parse_args(STUDY)


def test_budgets_reach_the_trainer(tmp_path, fake):
    options = study_cli._parser().parse_args(
        [*STUDY, "--seeds", "0", "--budget", "tokens=5000", "--budget", "hours=0.5", "--command", "true"]
    )
    study = study_cli.design.load()
    job, _ = study_cli._queue(study, study.pair("tiny_arith"), options, tmp_path)
    assert {"budget.generated_tokens=5000", "budget.hours=0.5"} <= set(job.overrides)
    assert job.ends["budget.generated_tokens"] == 5000 and job.run == "grpo_0032_1_tiny_arith_seed0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pair", "tiny_arit", "--arms", "grpo_0032_1"], "did you mean tiny_arith?"),
        (["--pair", "tiny_arith", "--arms", "grpo_0032_9"], "did you mean grpo_0032_8?"),
        (["--pair", "tiny_arith", "--arms", "asyttgrpo_2048_1_8"], "not declared for tiny_arith"),
        (["--pair", "tiny_arith"], "give --arms or --factor"),
        (["--pair", "tiny_arith", "--factor", "rollout"], "--factor rollout is unknown"),
        ([*STUDY, "--budget", "tokens=many"], "give a number above 0"),
        ([*STUDY, "--budget", "token=5"], "'token' is unknown"),
        ([*STUDY, "--seeds", "-1"], "seeds are whole numbers from 0 up"),
        ([*STUDY, "--steps", "0"], "--steps 0 must be at least 1"),
        ([*STUDY, "--", "seed=3"], "give --seeds instead"),
        ([*STUDY, "--", "data.train_batch_sice=3"], "did you mean data.train_batch_size?"),
        ([*STUDY, "actor_rollout_ref.actor.loss_agg_mode=token_mean"], "verl rejects the settings: Invalid loss_agg_mode"),
        ([*STUDY, "data.train_batch_size=many"], "must be a whole number"),
        (["--pair", "qwen0.5b_gsm", "--arms", "grpo_0032_8"], "no NVIDIA GPU was found"),
        ([*STUDY, "actor_rollout_ref.model.path=/no/such/model"], "/no/such/model does not exist"),
    ],
)
def test_a_slip_is_one_sentence_and_status_2(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr("Verl.trainer.settings.gpu_present", lambda: False)
    monkeypatch.setattr("Verl.trainer.machine_checks.gpu_present", lambda: False)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    full = [*arguments[:at], "--result", str(tmp_path), *arguments[at:]]
    assert study_cli.main(full) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_gpu_too_small_by_plan_is_refused_before_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("Verl.trainer.memory_here.gpu_gib", lambda: 16.0)
    monkeypatch.setattr(study_cli, "_refuse_if_missing", lambda one: None)  # as on a machine with a GPU
    assert study_cli.main(["--pair", "olmo1b_gsm", "--arms", "grpo_0032_8", "--result", str(tmp_path)]) == 2
    assert "grpo_0032_8_olmo1b_gsm_seed0 does not fit by plan" in capsys.readouterr().err
