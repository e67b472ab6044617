"""verl's loggers over a run that was cut and resumed: each step once, nothing lost, and one run in the dashboard."""

import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf
from verl.utils.tracking import Tracking

from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import trackers
from Verl.trainer.console import Console
from Verl.trainer.run_log import RunLog

CHECKPOINT, LAST = 3, 6


def config(*loggers: str):
    return OmegaConf.create(
        {"trainer": {"logger": list(loggers), "project_name": "p", "experiment_name": "run_seed0"}, "seed": 0}
    )


def started(folder: Path, resume: int, *loggers: str) -> RunLog:
    """A run's log with verl's own loggers, as a process opens them that goes on from a step."""
    log = RunLog("run_seed0", folder, Console(io.StringIO()))
    log.start_from(resume)
    trackers.prepare(config(*loggers), log)
    log.attach(Tracking("p", "run_seed0", list(loggers), config={"trainer": {}}), total_steps=LAST)
    return log


def steps(log: RunLog, first: int, last: int, flushed: int | None = None) -> None:
    for step in range(first, last + 1):
        log.log({"x": step / 2, "eval/test/format": float("nan") if step == 1 else 0.5}, step)
        if step == flushed:
            log.flush()


def cut_and_resumed(folder: Path, *loggers: str) -> RunLog:
    """A run that a kill met after a step beyond its checkpoint, and that went on from it."""
    first = started(folder, 0, *loggers)
    steps(first, 0, CHECKPOINT + 1, flushed=CHECKPOINT)
    second = started(folder, CHECKPOINT, *loggers)
    steps(second, CHECKPOINT + 1, LAST)
    second.finish()
    return second


def test_tensorboard_has_each_step_once_and_verls_file_keeps_its_beginning(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "tensorboard"))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "verl.jsonl"))
    cut_and_resumed(tmp_path, "tensorboard", "file")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("x")] == [(step, step / 2) for step in range(LAST + 1)]
    lines = [json.loads(line) for line in (tmp_path / "verl.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(LAST + 1)]
    assert lines[2]["data"] == {"x": 1.0, "eval/test/format": 0.5} and lines[1]["data"]["eval/test/format"] is None


def test_wandb_goes_on_in_the_same_run_and_a_fresh_start_is_another(tmp_path, monkeypatch):
    opened = []
    wandb = ModuleType("wandb")
    wandb.init = lambda **arguments: opened.append((os.environ["WANDB_RUN_ID"], arguments["name"]))
    wandb.log = wandb.finish = lambda **arguments: None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("WANDB_RUN_ID", "WANDB_RESUME"):
        monkeypatch.setenv(name, "x")  # so that it is taken back
        monkeypatch.delenv(name)
    log = cut_and_resumed(tmp_path / "a", "wandb")
    cut_and_resumed(tmp_path / "b", "wandb")  # another run in the same process
    first, again, other, other_again = (run for run, _ in opened)
    assert first == again != other == other_again
    assert log.recorded()["trackers"] == {"wandb": first}
    assert os.environ["WANDB_RESUME"] == "allow"
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    started(tmp_path / "c", 0, "wandb")
    assert opened[-1][0] == "mine"


def test_trackio_goes_on_in_the_same_run_with_each_step_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="optional: requirements-trackers.txt")
    from trackio.sqlite_storage import SQLiteStorage

    log = cut_and_resumed(tmp_path, "trackio")
    rows = SQLiteStorage.get_logs("p", "run_seed0")
    assert sorted(row["step"] for row in rows) == [*range(LAST + 1)]
    [record] = SQLiteStorage.get_run_records("p")
    assert record["id"] == log.recorded()["trackers"]["trackio"] and "trackio show" in log.console.terminal.getvalue()


def test_a_logger_that_is_not_installed_is_one_sentence(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackio" else find(name))
    with pytest.raises(UserError, match=r"-m pip install trackio.*requirements-trackers.txt"):
        shipped.prepare("run_grpo_0032_8_tiny_arith.sh", ["trainer.logger=[console,trackio]"])
