"""The record of a run: whole lines, no gap or repeat after a resume, and a stop with its cause."""

import io
import json
import math
import os

import pytest

from Verl.errors import RunStopped
from Verl.files import write_atomic
from Verl.trainer.console import Console, duration
from Verl.trainer.run_log import RunLog


@pytest.fixture
def log(tmp_path):
    return RunLog("run", tmp_path, Console(io.StringIO()))


def lines(log):
    return [json.loads(text) for text in log.jsonl.read_text().splitlines()]


def test_one_object_per_step(log):
    log.start_from(0)
    log.log({"b": 1.5, "a": 2, "table": {"not": "a number"}}, step=0)
    log.log({"actor/grad_norm": 0.25}, step=1)
    assert lines(log) == [{"step": 0, "a": 2, "b": 1.5}, {"step": 1, "actor/grad_norm": 0.25}]


def test_a_resume_cuts_back_and_does_not_repeat(log, tmp_path):
    log.start_from(0)
    for step in range(6):
        log.log({"x": step}, step=step)
    with open(log.jsonl, "a") as file:
        file.write('{"step": 6, "x":')  # a kill in the middle of a line
    again = RunLog("run", tmp_path, Console(io.StringIO()))
    again.start_from(4)
    again.log({"eval/resumed": 1.0}, step=4)  # verl evaluates before training, also when it resumes
    again.log({"x": 5}, step=5)
    assert [record["step"] for record in lines(again)] == [0, 1, 2, 3, 4, 5]
    assert all(record["x"] == record["step"] for record in lines(again))


def test_a_fresh_start_forgets(log):
    log.log({"x": 1}, step=0)
    log.start_from(0)
    assert lines(log) == []


@pytest.mark.parametrize("how", ["raises", "short"])
def test_a_full_disk_leaves_no_half_line(log, monkeypatch, how):
    log.start_from(0)
    log.log({"x": 1}, step=0)
    write = os.write

    def full(handle, data):
        written = write(handle, data[: len(data) // 2])
        if how == "raises":
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunStopped, match=r"run.jsonl: No space left on device; free some space"):
        log.log({"x": 2}, step=1)
    assert lines(log) == [{"step": 0, "x": 1}]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_stops_the_run_with_its_cause_and_is_in_the_log(log, value):
    log.start_from(0)
    with pytest.raises(RunStopped, match=r"step 3: actor/grad_norm is (nan|inf)"):
        log.log({"actor/grad_norm": value, "train/reward_mean": 0.5}, step=3)
    assert lines(log)[-1]["actor/grad_norm"] == str(value)


def test_the_checkpoint_comes_after_the_line(log):
    seen = []
    log.start_from(0)
    log.after_line = lambda: seen.append(len(lines(log)))
    log.log({"x": 1}, step=0)
    log.log({"x": 1}, step=0)  # a repeat writes nothing and saves nothing
    assert seen == [1]


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_durations_read_well():
    assert [duration(s) for s in (4.6, 200, 7500)] == ["5 s", "3 min 20 s", "2 h 05 min"]
