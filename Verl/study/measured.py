"""Throughput of the runs that are already there, for the plan and for the time left."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

SKIPPED_STEPS = 1  # the first step pays for compilation and caches


def seconds_per_response(result_dir: Path, pair: str, cell: str = "*") -> tuple[float, int] | None:
    """(seconds of a step / responses drawn in it, median over steps and then over runs; runs), None without runs.

    Of one cell, or of all of a pair. Only training steps count: `timing_s/step` without the evaluations that fall into
    it (`timing_s/testing`).
    """
    values = []
    for path in sorted(result_dir.glob(f"{cell}_{pair}_seed*.jsonl")):
        of_run = [value for line in path.read_text().splitlines() if (value := _of_line(line)) is not None]
        if len(of_run) > SKIPPED_STEPS:
            values.append(median(of_run[SKIPPED_STEPS:]))
    return (median(values), len(values)) if values else None


def _of_line(line: str) -> float | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:  # a line that is being written
        return None
    drawn, seconds = record.get("ledger/responses_generated"), record.get("timing_s/step")
    if not drawn or seconds is None:
        return None
    return max(0.0, seconds - record.get("timing_s/testing", 0.0)) / drawn
