"""Which step is the last, what a last step gets, and what stops a run: on a trainer of plain objects."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from Verl.errors import RunStopped
from Verl.trainer import full_disk, run_log
from Verl.trainer.console import Console, TrainingProgress
from Verl.trainer.interruption import Interrupted, StopRequest
from Verl.trainer.ppo import ending
from Verl.trainer.ppo.evaluation import EvaluationSet
from Verl.trainer.ppo.failed_rewards import ENOUGH, FailedRewards
from Verl.trainer.ppo.ledger import Ledger
from Verl.trainer.run_log import RunLog

NO_BUDGET = {"generated_tokens": None, "gradient_samples": None, "hours": None, "patience": None}


class Trainer:
    """What Ending asks of a trainer; `evaluated` and `saved` note what it was made to do."""

    def __init__(self, folder, total: int = 10, step: int = 0, save_freq: int = 5, keep_best: bool = False, **budget):
        self.global_steps, self.total_training_steps, self.steps_per_epoch = step, total, 3
        settings = SimpleNamespace(total_epochs=2, save_freq=save_freq, keep_best=keep_best)
        optim = SimpleNamespace(total_training_steps=total)
        self.config = SimpleNamespace(
            trainer=settings, budget={**NO_BUDGET, **budget},
            actor_rollout_ref=SimpleNamespace(actor=SimpleNamespace(optim=optim)),
        )  # fmt: skip
        self.train_dataset = range(100)
        self.run_log = RunLog("run", folder, Console(io.StringIO()))
        self.ledger, self.evaluated, self.saved, self._noted = Ledger(), [], [], False
        sets = [EvaluationSet("test", None, [], 1), EvaluationSet("train", None, [], 1)]
        self.evaluator = SimpleNamespace(sets=sets, run=self.evaluate)
        self.checkpoints = SimpleNamespace(commit=self.commit, steps=lambda: self.saved)
        self.ending = ending.Ending(self)

    def evaluate(self, step, last, besides):
        self.evaluated.append((step, last, sorted(besides)))
        return {f"eval/{name}/{key}": 1.0 for name in ("test", "train") if name not in besides
                for key in ("pass@1", "questions", "samples", "temperature", "top_p", "top_k")}  # fmt: skip

    def _save_checkpoint(self):
        self._noted = True

    def commit(self):
        if self._noted:
            self.saved.append(self.global_steps)
        self._noted = False

    def steps(self, *metrics: dict):
        for step, line in enumerate(metrics, start=self.global_steps):
            self.global_steps = step
            self.run_log.log(line, step=step)
        self.global_steps += 1  # as verl's loop leaves it

    @property
    def said(self) -> str:
        return self.run_log.console.terminal.getvalue()


@pytest.fixture
def request_(monkeypatch):
    request = StopRequest()
    monkeypatch.setattr(ending, "REQUEST", request)
    return request


def test_epochs_that_end_before_the_steps_do_are_said_and_end_the_run_as_any_other(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.ending.limit_to_epochs()
    assert trainer.total_training_steps == 6  # verl evaluates and saves there
    assert trainer.config.actor_rollout_ref.actor.optim.total_training_steps == 6
    assert "trainer.total_epochs=2 ends this run at step 6, not 10" in trainer.said
    enough = Trainer(tmp_path, total=6)
    enough.ending.limit_to_epochs()
    assert enough.total_training_steps == 6 and not enough.said


def test_a_run_that_ends_early_gets_the_evaluation_that_its_last_line_lacks(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.steps({"x": 0.5}, {"x": 0.5, "eval/test/pass@1": 0.25})
    trainer.ending.close()
    assert trainer.evaluated == [(1, True, ["test"])] and trainer.saved == [1]
    last = json.loads(trainer.run_log.jsonl.read_text().splitlines()[-1])
    assert last["step"] == 1 and last["x"] == 0.5 and last["eval/test/pass@1"] == 0.25 and last["eval/train/pass@1"] == 1.0
    assert trainer.global_steps == 2
    trainer.ending.close()  # as after a kill in the middle: nothing is done twice
    assert trainer.evaluated[-1] == (1, True, ["test", "train"]) and trainer.saved == [1]


def test_a_last_step_that_was_evaluated_as_one_between_gets_the_final_samples(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.evaluator.sets[0] = EvaluationSet("test", None, [], 1, final_samples=8)
    trainer.steps({"eval/test/pass@1": 0.25, "eval/train/pass@1": 0.5})
    trainer.ending.close()
    assert trainer.evaluated == [(0, True, ["train"])]
    trainer.run_log.amend({"eval/test/avg@8": 0.25})
    trainer.ending.close()
    assert trainer.evaluated[-1] == (0, True, ["test", "train"])


def test_a_run_that_never_saves_does_not_save_its_end(tmp_path):
    trainer = Trainer(tmp_path, save_freq=-1)
    trainer.steps({"x": 0.5}, {"x": 0.5})
    trainer.ending.close()
    assert trainer.evaluated and not trainer.saved


def test_the_first_step_can_be_the_one_that_uses_up_the_budget(tmp_path, request_):
    trainer = Trainer(tmp_path, step=1, gradient_samples=5)
    trainer.ending.after_line()
    assert trainer.total_training_steps == 10
    trainer.ledger.totals["gradient_samples"] = 5.0
    trainer.ending.after_line()
    assert trainer.total_training_steps == 1 and "budget.gradient_samples=5 is used up" in trainer.said


def test_a_run_cut_after_its_budget_does_not_train_on(tmp_path):
    trainer = Trainer(tmp_path, gradient_samples=5)
    trainer.ledger.totals["gradient_samples"] = 5.0
    trainer.run_log.last_step, trainer.global_steps = 4, 5
    trainer.ending.begin()
    assert trainer.total_training_steps == 4


def test_a_stop_saves_the_step_and_the_last_step_ends_by_itself(tmp_path, request_):
    trainer = Trainer(tmp_path, step=4, save_freq=-1)
    trainer.ending.after_line()
    assert not trainer.saved
    request_.by = "SIGTERM"
    with pytest.raises(Interrupted):
        trainer.ending.after_line()
    assert trainer.saved == [4]
    last = Trainer(tmp_path, total=4, step=4)
    last.ending.after_line()  # finished anyway: no interruption
    first = Trainer(tmp_path, step=0)
    with pytest.raises(Interrupted):
        first.ending.after_line()
    assert not first.saved  # there is no step yet


# ---- the best step, and patience ----------------------------------------------------------------------------------


def validated(trainer: Trainer, *scores: float | None) -> None:
    """Steps with these validation scores (None: not evaluated), as verl's loop and the log take them."""
    trainer.run_log.after_line = trainer.ending.after_line
    for score in scores:
        if trainer.global_steps > trainer.total_training_steps:
            break
        trainer.steps({"x": 0.5} if score is None else {"eval/validation/pass@1": score})


def best_of(trainer: Trainer) -> dict:
    return json.loads((trainer.run_log.folder / "run.json").read_text())["best"]


def test_each_step_that_is_better_on_validation_is_saved_and_named(tmp_path):
    trainer = Trainer(tmp_path, save_freq=-1, keep_best=True)
    validated(trainer, 0.9, 0.2, None, 0.4, 0.4, float("nan"), 0.3)
    assert trainer.saved == [1, 3]  # not the start, which has no checkpoint; of equal ones the first
    assert best_of(trainer) == {"step": 3, "eval/validation/pass@1": 0.4}
    assert "step 3: the best on validation so far, 0.400" in trainer.said


def test_patience_ends_a_run_after_as_many_evaluations_without_a_better_one(tmp_path, request_):
    trainer = Trainer(tmp_path, patience=2)
    validated(trainer, 0.3, 0.5, None, 0.5, None, 0.4, 0.9)
    assert trainer.total_training_steps == 5 and "budget.patience=2 is used up" in trainer.said
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert "budget.patience=2" in record["ended_by"] and record["best"]["step"] == 1 and not trainer.saved
    # Cut before its end was written, it ends at the same step; with more patience, or none, it goes on.
    for patience, last in ((2, 5), (3, 10), (None, 10)):
        resumed = Trainer(tmp_path, step=6, patience=patience)
        resumed.run_log.start_from(5)
        resumed.ending.begin()
        assert resumed.total_training_steps == last


def test_what_a_resume_cuts_off_is_not_the_best_any_more(tmp_path):
    trainer = Trainer(tmp_path, keep_best=True)
    validated(trainer, 0.1, 0.2, 0.3)
    resumed = Trainer(tmp_path, step=2, keep_best=True)
    resumed.run_log.start_from(1)
    resumed.ending.begin()
    assert best_of(resumed)["step"] == 1
    validated(resumed, 0.25)
    assert best_of(resumed)["step"] == 2 and resumed.saved == [2]


_STOPPED = """
import os, sys, threading, time
from Verl.trainer import interruption
interruption.GRACE_SECONDS, interruption.LIMIT_SECONDS, interruption._SAME_SIGNAL_SECONDS = 1.0, 3.0, 0.1
request = interruption.StopRequest()
request.install()
request.tell(lambda text: os.write(1, (text + chr(10)).encode()), lambda: os.write(1, b"last words\\n"))
how = sys.argv[1]
if how != "before training":
    request.wait_for_step_end()
try:
    print("ready", flush=True)
    if how == "stuck":  # in a way that no exception ends
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
    for _ in range(600):
        time.sleep(0.1)
        if how == "short step":
            request.check()
except KeyboardInterrupt as stop:
    print(type(stop).__name__, stop)
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("how", "signals", "seconds", "said"),
    [
        ("before training", "INT", (0, 1), "Interrupted SIGINT"),
        ("short step", "TERM", (0, 1), "Interrupted SIGTERM"),
        ("long step", "HUP", (1, 2.5), "Interrupted SIGHUP"),  # given up after the grace
        ("long step", "TERM TERM", (0, 1), "Interrupted SIGTERM"),
        ("stuck", "TERM", (3, 5), "last words"),
    ],
)
def test_signals(how, signals, seconds, said):
    process = subprocess.Popen(
        ["bash", "-c", f'"$0" -c "$1" "{how}" & echo $!; wait $!; echo status $?', sys.executable, _STOPPED],
        stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup too
    )  # fmt: skip  by a shell in the background: SIGINT is ignored there
    number = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for name in signals.split():
        subprocess.run(["kill", f"-{name}", str(number)], check=True)
        time.sleep(0.2)
    output, _ = process.communicate(timeout=30)
    assert said in output and "status 130" in output
    least, most = seconds
    assert least <= time.monotonic() - began < most + 3  # a busy machine


# ---- failing rewards ----------------------------------------------------------------------------------------------


def rewards(failures: int, timeouts: int, good: int, error: str | None = None):
    scores = {"failure": [1.0] * failures + [0.0] * (timeouts + good),
              "timeout": [0.0] * failures + [1.0] * timeouts + [0.0] * good}  # fmt: skip

    class Some(SimpleNamespace):
        def __len__(self):
            return failures + timeouts + good

    return Some(scores=scores, extra=None, first_error=error)


def test_a_step_without_a_single_reward_stops_the_run_with_the_first_error(capsys):
    watch = FailedRewards()
    watch.check(rewards(31, 0, 1), "step 1")
    trace = "Traceback (most recent call last):\n  File ...\nKeyError: 'answer'\n"
    with pytest.raises(RunStopped, match=r"step 2: none of the 32 rewards could be computed \(KeyError: 'answer'\)"):
        watch.check(rewards(30, 2, 0, trace), "step 2")
    assert trace in capsys.readouterr().out


def test_small_steps_that_fail_are_counted_together_and_a_good_one_between_them_forgives():
    watch = FailedRewards()
    for _ in range(ENOUGH - 1):
        watch.check(rewards(1, 0, 0), "step")
    watch.check(rewards(0, 0, 1), "step")
    for _ in range(ENOUGH - 1):
        watch.check(rewards(0, 1, 0), "step")
    with pytest.raises(RunStopped, match="time limit"):
        watch.check(rewards(0, 1, 0), "step")


def test_the_console_says_what_share_of_the_rewards_failed():
    terminal = io.StringIO()
    progress = TrainingProgress(Console(terminal), total_steps=2)
    progress.step(1, {"ledger/responses_generated": 64.0, "reward/failures": 3.0, "reward/timeouts": 1.0})
    progress.step(2, {"ledger/responses_generated": 64.0, "reward/failures": 0.0, "reward/timeouts": 0.0})
    *_, bad, good = terminal.getvalue().splitlines()
    assert "4 of 64 rewards failed" in bad and "1 of them by the time limit" in bad and "failed" not in good


# ---- a full disk --------------------------------------------------------------------------------------------------


def test_a_status_is_recorded_in_the_space_that_is_there(tmp_path, monkeypatch):
    log = RunLog("run", tmp_path, Console(io.StringIO()))
    log.describe(status="running", machine="a long name that the next record has no room to drop")

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_log, "write_atomic", full)
    log.describe(status="failed", reason="the disk is full")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: 3)  # not even that
    with pytest.raises(OSError):
        full_disk.overwrite(tmp_path / "run/run.json", "x" * 100)
    log.describe(status="finished")
    assert "can't write to" in log.console.terminal.getvalue()


def test_a_full_disk_is_known_through_a_worker_error(tmp_path, monkeypatch):
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as cause:
            raise RuntimeError("a task failed") from cause
    except RuntimeError as error:
        assert full_disk.is_full(error, tmp_path)
    assert not full_disk.is_full(RuntimeError("unexpected pos 640 vs 534"), tmp_path)
    monkeypatch.setattr(full_disk, "free_bytes", lambda folder: 0)
    assert full_disk.is_full(RuntimeError("unexpected pos 640 vs 534"), tmp_path)  # torch's words for it
