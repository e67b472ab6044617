"""What the runs of a result folder are doing now: read anew at every look, half-written lines and all."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from Verl.analysis.runs.run_file import RunFile, read_run
from Verl.errors import UserError
from Verl.trainer.benchmarks import SPLITS, evaluated_sets
from Verl.trainer.run_folder import going_on

_KEPT = re.compile(
    r"(train/(reward_mean|pass@1|response_length_mean)|eval/[^/]+/pass@1|"
    r"actor/(kl_loss|grad_norm)|timing_s/step|ledger/total_hours|reward/(?!failures$|timeouts$).*)"
)
_TOTAL = re.compile(r"^  total_training_steps: (\d+)\s*$", re.MULTILINE)
QUIET = 60.0  # seconds after which a run that calls itself running must show that it lives


class MetricCurve(NamedTuple):
    """(step, value) of one metric where it was logged."""

    points: list[tuple[int, float]]

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]

    @property
    def last(self) -> float:
        return self.points[-1][1] if self.points else math.nan


@dataclass(frozen=True)
class RunNow:
    """A run at this moment. ``total``: its steps, None if it has no such end; ``changed``: seconds since the epoch."""

    name: str
    status: str
    step: int
    total: int | None
    changed: float
    identity: dict
    rows: dict[int, dict[str, float]]
    problem: str | None = None

    def curve(self, metric: str) -> MetricCurve:
        return MetricCurve([(step, row[metric]) for step, row in sorted(self.rows.items()) if metric in row])

    def benchmarks(self) -> list[str]:
        """The sets that were evaluated beside train, validation and test."""
        return [name for name in evaluated_sets({key for row in self.rows.values() for key in row}) if name not in SPLITS]

    def reward_parts(self) -> list[str]:
        """The metrics of the parts of a user's reward, by name."""
        return sorted({key for row in self.rows.values() for key in row if key.startswith("reward/")})

    @property
    def seconds_per_step(self) -> float:
        """Mean over the last 20 steps; the first one, which warms everything up, counts only if it is alone."""
        seconds = self.curve("timing_s/step").values
        recent = (seconds[1:] or seconds)[-20:]
        return sum(recent) / len(recent) if recent else math.nan

    @property
    def seconds_left(self) -> float:
        """To the last step; NaN where it has none or nothing was measured yet."""
        return self.seconds_per_step * max(0, self.total - self.step) if self.total is not None else math.nan


class Looker:
    """Looks at a result folder again and again; a file that did not change is not read twice."""

    def __init__(self, result_dir: Path, names: Sequence[str] = (), everything: bool = False):
        """Args: names: only these runs. everything: finished ones too, not only those going on."""
        self.result_dir, self.names, self.everything = Path(result_dir), tuple(names), everything
        self._read: dict[str, tuple[tuple, RunNow]] = {}
        self._totals: dict[str, int | None] = {}

    def look(self) -> list[RunNow]:
        """The runs going on; if there are none, the three that changed last; the newest first.

        Raises:
            UserError: a run that was asked for is not there, or there is none at all.
        """
        known = self._known()
        for name in self.names:
            if name not in known:
                raise UserError(f"there is no run {name} in {self.result_dir}")
        if not known:
            raise UserError(f"no run in {self.result_dir} yet: start one, or name its folder with --result")
        found = [self._run(name) for name in (self.names or known)]
        found.sort(key=lambda run: (-run.changed, run.name))
        if self.names or self.everything:
            return found
        return [run for run in found if run.status == "running"] or found[:3]

    def _known(self) -> list[str]:
        """Names of all runs: of their jsonl, their console log, or their folder before the first line."""
        names = {path.stem for path in self.result_dir.glob("*.jsonl")}
        names |= {path.stem for path in self.result_dir.glob("*.log")}
        return sorted(names | {path.parent.name for path in self.result_dir.glob("*/run.json")})

    def _run(self, name: str) -> RunNow:
        jsonl = self.result_dir / f"{name}.jsonl"
        path = jsonl if jsonl.exists() else self.result_dir / f"{name}.log"
        run_json = self.result_dir / name / "run.json"
        stamp = tuple(_stamp(one) for one in (path, run_json))
        if name in self._read and self._read[name][0] == stamp and self._read[name][1].status != "running":
            return self._read[name][1]
        run = self._read_now(name, path, max(mark[0] for mark in stamp))
        self._read[name] = (stamp, run)
        return run

    def _read_now(self, name: str, path: Path, changed: float) -> RunNow:
        read = read_run(path, lambda key: _KEPT.fullmatch(key) is not None) if path.exists() else RunFile(name, {})
        status = self._status(name, changed)
        step = max(read.rows, default=0)
        cut = next((text for text in read.problems if "NaN or infinite" in text), None)
        return RunNow(name, status, step, self._total(name), changed, read.identity, read.rows, cut)

    def _status(self, name: str, changed: float) -> str:
        try:
            status = str(json.loads((self.result_dir / name / "run.json").read_text()).get("status", "unknown"))
        except (OSError, ValueError, AttributeError):
            return "unknown"
        # Testing the lock takes it for an instant, so only where a run has been still for long.
        if status == "running" and time.time() - changed > QUIET and not going_on(self.result_dir, name):
            return "stopped without a word"
        return status

    def _total(self, name: str) -> int | None:
        if self._totals.get(name) is None:
            try:
                match = _TOTAL.search((self.result_dir / name / "config.yaml").read_text())
            except OSError:
                match = None
            self._totals[name] = int(match[1]) if match else None
        return self._totals[name]


def _stamp(path: Path) -> tuple[float, int]:
    """When a file changed and how long it is; zeros if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return 0.0, 0
    return found.st_mtime, found.st_size
