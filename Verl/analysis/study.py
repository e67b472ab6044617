"""A study as pandas frames, for a notebook or a script of one's own.

    from Verl.analysis import load_study
    study = load_study("Running-Results/studies/tiny_arith")
    study.table                                   # an arm per row: start, final, best, gain, verdict
    study.runs, study.steps, study.evaluations, study.verdicts, study.problems

Each frame is worked out when it is first asked for, and kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from Verl import RESULT_DIR
from Verl.analysis.runs import packed
from Verl.analysis.runs.run_file import IDENTITY, TEST
from Verl.analysis.runs.table import Runs, evaluation_files, load_runs
from Verl.analysis.verdicts.compare import compare, study_family, study_verdicts
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.judge import MARGIN, Key, Verdict
from Verl.analysis.verdicts.summary import summary_table
from Verl.errors import UserError

_RECORD = ("algorithm", "ended_by", "reason", "seconds", "command", "commit")  # of run.json, where it has them
_TOTALS = {"tokens_generated": "ledger/total_tokens_generated", "hours": "ledger/total_hours"}
_NOT_SCORES = ("text", "tokens")


def load_study(folder: Path | str = RESULT_DIR, margin: float = MARGIN) -> StudyResults:
    """The runs of a folder: one that runs write to, or a study as it is committed, packed or not.

    Args:
        folder: of the runs' jsonl, or one with such a folder `result` in it.
        margin: the largest difference of Pass@1 that does not matter, for the verdicts.

    Raises:
        UserError: no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with runs, as Running-Results/result")
    for place in (folder, folder / "result"):
        if packed.find(place, "*.jsonl") or packed.find(place, "*.log"):
            return StudyResults(place, margin)
    raise UserError(f"no run found in {folder}: give a folder with runs, as Running-Results/result")


@dataclass(frozen=True)
class StudyResults:
    """What `load_study` gives."""

    folder: Path
    margin: float = MARGIN

    @cached_property
    def _read(self) -> Runs:
        return load_runs(self.folder)

    @property
    def steps(self) -> pd.DataFrame:
        """A row per run and step: what the run was, `step`, and every metric that any run logs."""
        return self._read.table

    @property
    def problems(self) -> list[str]:
        """What is missing or wrong, a sentence each."""
        return list(self._read.problems)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run: what it was, its last step, test Pass@1 at both ends, cost, best step, and how it was started."""
        rows = [self._run(str(name), rows) for name, rows in self.steps.groupby("run", sort=False)]
        return pd.DataFrame(rows)

    def _run(self, name: str, rows: pd.DataFrame) -> dict[str, Any]:
        record = self._record(name)
        curve = rows.set_index("step")[TEST].dropna() if TEST in rows else pd.Series(dtype=float)
        found = {key: rows[key].iloc[0] for key in IDENTITY} | {"steps": int(rows["step"].max())}
        found |= {"start": curve.get(0, math.nan), "final": curve.iloc[-1] if len(curve) else math.nan}
        found |= {key: rows[metric].max() if metric in rows else math.nan for key, metric in _TOTALS.items()}
        found |= {"best_step": (record.get("best") or {}).get("step")}
        return found | {key: record.get(key) for key in _RECORD}

    def _record(self, name: str) -> Mapping[str, Any]:
        try:
            record = json.loads(packed.read_text(self.folder / name / "run.json"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """A row per answer of an evaluation that is stored: run, pair, arm, run_seed, step, split, data_source, index, sample,
        its scores and the parts of its reward; without texts, which `answers` has."""
        return self.answers(texts=False)

    def answers(self, run: str | None = None, split: str | None = None, texts: bool = True) -> pd.DataFrame:
        """The same with what was said.

        Args:
            run: one run alone; None: all of them. split: train, validation, test or a benchmark; None: all.

        Raises:
            UserError: there is no such run.
        """
        known = self.steps.drop_duplicates("run").set_index("run")
        if run is not None and run not in known.index:
            raise UserError(f"there is no run {run} in {self.folder}")
        tables = []
        for name in known.index if run is None else [run]:
            for step, path in evaluation_files(self.folder, name).items():
                columns = [one for one in packed.column_names(path) if texts or one not in _NOT_SCORES]
                table = packed.read_rows(path, [one for one in columns if one not in ("step", "seed", "run")])
                if split is not None:
                    table = table.filter(pa.compute.equal(table["split"], split))
                own = {"run": name, **{key: known.at[name, key] for key in ("pair", "arm")}}
                for column, value in own.items():
                    table = table.append_column(column, _repeated(value, len(table)))
                for column, value in (("run_seed", int(known.at[name, "seed"])), ("step", step)):
                    table = table.append_column(column, pa.array([value] * len(table), pa.int64()))
                tables.append(table)
        if not tables:
            return pd.DataFrame()
        frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        first = ["run", "pair", "arm", "run_seed", "step"]
        return frame[[*first, *(name for name in frame.columns if name not in first)]]

    @cached_property
    def _judged(self) -> Mapping[Key, Verdict]:
        return study_verdicts(self._read, self.folder, margin=self.margin)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per pair and arm, as table.csv of the figures: start, final, best, gain and marginal gain, with intervals and
        verdicts."""
        return summary_table(self._read, result_dir=self.folder, margin=self.margin, judged=self._judged)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """A row per comparison that the study makes: of arms, with the base line, and of each arm with its own start."""
        families: dict[tuple[str, str], list[Key]] = {}
        for key in study_family(self.steps):
            families.setdefault((key[0], key[2]), []).append(key)
        found = [one for family in families.values() for one in compare(self._read, family, self.folder, judged=self._judged)]
        return pd.DataFrame([_verdict(one) for one in found])


def _repeated(value: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [str(value)])


def _verdict(one: Comparison) -> dict[str, Any]:
    """NaN where nothing can be said; the sentence says why."""
    judged = one.judged.found if one.known else None
    return {
        "pair": one.pair,
        "arm": one.arm,
        "reference": one.base_line,
        "at_step": one.at,
        "seeds": len(one.seeds),
        "questions": one.questions,
        **{name: getattr(judged, name, math.nan) for name in ("difference", "low", "high", "p")},
        "verdict": one.verdict or "",
        "t_p": math.nan if one.adjusted_p is None else one.adjusted_p,
        "sentence": one.sentence,
    }
