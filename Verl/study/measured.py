"""Throughput of the runs that are already there, loose or packed, for the plan and for the time left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from Verl.analysis.runs import packed
from Verl.trainer.benchmarks import evaluated_sets

SKIPPED_STEPS = 1  # the first step pays for compilation and caches


def seconds_per_response(result_dir: Path, pair: str, arm: str = "*") -> tuple[float, int] | None:
    """(seconds of a step / responses drawn in it, median over steps and then over runs; runs), None without runs.

    Of one arm, or of all of a pair. Only training steps count: `timing_s/step` without the evaluations that fall into
    it (`timing_s/testing`).
    """
    return _over_runs(result_dir, pair, arm, _of_step, SKIPPED_STEPS)


def seconds_per_evaluated(result_dir: Path, pair: str, arm: str = "*") -> tuple[float, int] | None:
    """The same of the responses of evaluations, which are drawn many at a time (`timing_s/testing`)."""
    return _over_runs(result_dir, pair, arm, _of_evaluation, 0)


def _over_runs(result_dir: Path, pair: str, arm: str, read: Callable, skipped: int) -> tuple[float, int] | None:
    values = []
    for path in packed.find(result_dir, f"{arm}_{pair}_seed*.jsonl"):
        of_run = [value for line in packed.read_text(path).splitlines() if (value := read(_record(line))) is not None]
        if len(of_run) > skipped:
            values.append(median(of_run[skipped:]))
    return (median(values), len(values)) if values else None


def _record(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # a line that is being written
        return {}


def _of_evaluation(record: dict[str, Any]) -> float | None:
    seconds, drawn = record.get("timing_s/testing"), 0.0
    for name in evaluated_sets(record):
        further = [int(key.partition("@")[2]) for key in record if re.fullmatch(rf"eval/{name}/avg@\d+", key)]
        samples = max([record.get(f"eval/{name}/samples", 1.0), *further])
        drawn += record.get(f"eval/{name}/questions", 0.0) * samples
    return seconds / drawn if seconds and drawn else None


def _of_step(record: dict[str, Any]) -> float | None:
    drawn, seconds = record.get("ledger/responses_generated"), record.get("timing_s/step")
    if not drawn or seconds is None:
        return None
    return max(0.0, seconds - record.get("timing_s/testing", 0.0)) / drawn
