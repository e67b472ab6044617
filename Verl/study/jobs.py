"""The queue of a study as a table of states, and whether a run is done: said by the run's own files, not by the table.

The table (Running-Results/result/study_<name>.json) is written whole after every change, for people and for the time
left; a runner that starts again trusts only run.json, so that a kill between two writes costs nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from Verl.files import locked, write_atomic
from Verl.trainer import run_folder

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass
class Job:
    """One run of a study. `work`: responses it draws, evaluation included, at most; the unit of the time left.

    `algorithm`, `unscripted`: entry point and settings of an arm without a script (starting.py)."""

    run: str
    arm: str
    seed: int
    script: str
    overrides: list[str]
    config_hash: str
    steps: int
    work: float
    ends: dict[str, Any] = field(default_factory=dict)
    algorithm: str = ""
    unscripted: list[str] = field(default_factory=list)
    state: str = WAITING
    attempts: int = 0
    seconds: float = 0.0
    exit_status: int | None = None
    reason: str | None = None

    @property
    def title(self) -> str:
        return f"{self.arm} seed {self.seed}"


def finished(result_dir: Path, job: Job) -> bool:
    """Whether a run is there, finished, and as long as requested: it took the steps, or ended by the same budget."""
    return run_folder.finished(result_dir / job.run, job.steps, job.ends)


def run_record(result_dir: Path, run: str) -> Mapping[str, Any]:
    """run.json, empty if there is none."""
    return run_folder.recorded(result_dir / run)


def mark_interrupted(result_dir: Path, run: str) -> None:
    """For a run that was killed before it could say so itself: its run.json no longer says "running"."""
    record = run_record(result_dir, run)
    if record.get("status") == "running" and not run_folder.going_on(result_dir, run):
        changed = {**record, "status": "interrupted", "reason": "stopped with its study"}
        write_atomic(result_dir / run / "run.json", json.dumps(changed, indent=1) + "\n")


class Table:
    """The states of a study's runs, in a file."""

    def __init__(self, path: Path, study: str, pair: str, jobs: list[Job]):
        self.path, self.study, self.pair, self.jobs = path, study, pair, jobs
        self.decisions: dict[str, Any] = {}  # of a study with seeds until it is decided: why each arm goes on or stops
        self._remember()

    def _remember(self) -> None:
        """Takes over how long runs took; their states are found out again."""
        try:
            known = {entry["run"]: entry for entry in json.loads(self.path.read_text())["runs"]}
        except (OSError, ValueError, KeyError, TypeError):
            return
        for job in self.jobs:
            job.seconds = float(known.get(job.run, {}).get("seconds", 0.0))

    def write(self) -> None:
        content = {"study": self.study, "pair": self.pair, "runs": [asdict(job) for job in self.jobs]}
        if self.decisions:
            content["decisions"] = self.decisions
        write_atomic(self.path, json.dumps(content, indent=1) + "\n")

    def count(self, state: str) -> int:
        return sum(job.state == state for job in self.jobs)


def only_one(path: Path, study: str) -> contextlib.AbstractContextManager[None]:
    """One runner per study."""
    busy = f"the study {study} is going on in another process: wait for it, or choose another --name"
    return locked(path, busy, remove=True)
