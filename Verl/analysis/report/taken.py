"""Which step of a run was taken: the best on validation, and what ended the run before its last step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from Verl.analysis.runs.packed import read_text
from Verl.analysis.runs.run_file import TEST
from Verl.trainer.best import VALIDATION


class Taken(NamedTuple):
    """``test``: test Pass@1 at the best step, NaN where the test set was not evaluated there; ``why``: what ended the run."""

    run: str
    last_step: int
    why: str
    step: int | None
    validation: float
    test: float


def steps_taken(result_dir: Path, table: pd.DataFrame) -> list[Taken]:
    """A row per run that kept its best step or that a budget or its patience ended; in the table's order."""
    found = []
    for run, rows in table.groupby("run", sort=False):
        try:
            record = json.loads(read_text(result_dir / str(run) / "run.json"))
        except (OSError, ValueError):
            continue
        if not isinstance(record, dict):
            continue
        best, why = record.get("best"), record.get("ended_by") or ""
        if not best and not why:
            continue
        step = best["step"] if best else None
        at_best = rows.loc[rows["step"] == step, TEST].dropna() if TEST in rows else pd.Series(dtype=float)
        test = float(at_best.iloc[-1]) if len(at_best) else np.nan
        validation = float(best[VALIDATION]) if best else np.nan
        found.append(Taken(str(run), int(rows["step"].max()), why, step, validation, test))
    return found
