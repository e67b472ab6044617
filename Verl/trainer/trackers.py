"""verl's own loggers over a run that was cut and resumed: each step once, nothing lost, one run in the dashboard.

verl opens each of them as for a new run (verl 0.9.1, `verl/utils/tracking.py`). The run's jsonl, which a resume cuts back to
its checkpoint, is what they are brought in line with:

* tensorboard: a start event at the first step to come; readers drop what stands from that step on, as after a crash;
* file: verl empties it; the lines of the jsonl are written again;
* wandb: the same run, by its id in run.json; it takes no step twice by itself;
* trackio: the same run; rows from that step on are removed, and rows that a kill has lost are logged again.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from Verl.trainer.console import Console

KEY = "trackers"  # of run.json: {logger: the run's id there}


class Record(Protocol):
    """What is used of a run's record (`Verl.trainer.run_log.RunLog`): run.json, the lines of the jsonl, the console."""

    last_step: int
    console: Console

    def recorded(self) -> dict[str, Any]: ...
    def describe(self, **entries: Any) -> None: ...
    def records(self) -> Iterable[dict[str, Any]]: ...


def names(config: DictConfig) -> list[str]:
    """The loggers that a run has."""
    requested = config.trainer.logger
    return [requested] if isinstance(requested, str) else [str(one) for one in requested]


def prepare(config: DictConfig, run_log: Record) -> None:
    """Before verl opens its loggers, and once the log is cut back: which run of theirs this one is."""
    requested, known = names(config), dict(run_log.recorded().get(KEY) or {})
    if "wandb" in requested:
        known["wandb"] = _name_wandb(known.get("wandb"))
    if "trackio" in requested:
        known["trackio"] = _open_trackio(config, run_log, resumed="trackio" in known)
    if known:
        run_log.describe(**{KEY: known})


_GIVEN_BY_US: set[str] = set()  # one process may carry out several runs


def _name_wandb(known: str | None) -> str:
    """Say in the environment, where wandb looks, which run this is; what a user has set there wins."""
    requested = os.environ.get("WANDB_RUN_ID")
    if requested and requested not in _GIVEN_BY_US:
        return requested
    run = known or uuid.uuid4().hex[:12]
    _GIVEN_BY_US.add(run)
    os.environ["WANDB_RUN_ID"] = run
    os.environ.setdefault("WANDB_RESUME", "allow")
    return run


def bring_in_line(tracking: Any, run_log: Record) -> None:
    """After verl has opened its loggers."""
    loggers = getattr(tracking, "logger", {})
    if "tensorboard" in loggers:
        _purge_tensorboard(loggers["tensorboard"].writer, run_log.last_step + 1)
    if "file" in loggers:
        for record in run_log.records():
            loggers["file"].log(data=_numbers(record), step=record["step"])


def flush(tracking: Any) -> None:
    """Before a checkpoint is written: what is logged up to it outlives a kill, which what is still buffered does not."""
    if "tensorboard" in (loggers := getattr(tracking, "logger", {})):
        loggers["tensorboard"].writer.flush()


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) if isinstance(value, str) else value for key, value in record.items() if key != "step"}


# ---- tensorboard --------------------------------------------------------------------------------------------------


def _purge_tensorboard(writer: Any, step: int) -> None:
    """What torch's SummaryWriter does with `purge_step`, which verl does not give."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    writer.file_writer.add_event(Event(file_version="brain.Event:2"), step)
    writer.file_writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step)


# ---- trackio ------------------------------------------------------------------------------------------------------


def _open_trackio(config: DictConfig, run_log: Record, resumed: bool) -> str:
    """Open the run before verl does, which then takes it as it is; its id.

    A run of this name of another start is left alone: `resumed` says that run.json knows of one of ours.
    """
    import trackio

    run = trackio.init(
        project=config.trainer.project_name,
        name=config.trainer.experiment_name,
        config=OmegaConf.to_container(config, resolve=True),
        resume="allow" if resumed else "never",
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    if resumed:
        there = _trackio_steps(config.trainer.project_name, run.id, run_log.last_step + 1)
        for record in run_log.records():
            if record["step"] not in there:
                trackio.log({k: v for k, v in _numbers(record).items() if math.isfinite(v)}, step=record["step"])
    run_log.console.say(f'trackio: `trackio show --project "{config.trainer.project_name}"` shows this run, on this machine')
    return str(run.id)


def _trackio_steps(project: str, run: str, first: int) -> set[int]:
    """Remove a run's rows from step `first` on; the steps that are left. Nothing where trackio keeps them elsewhere."""
    from trackio.sqlite_storage import SQLiteStorage

    with _rows(SQLiteStorage.get_project_db_path(project)) as rows:
        rows.execute("DELETE FROM metrics WHERE run_id = ? AND step >= ?", (run, first))
        return {int(step) for (step,) in rows.execute("SELECT DISTINCT step FROM metrics WHERE run_id = ?", (run,))}


@contextlib.contextmanager
def _rows(path: Any) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()
