"""Reads the runs of a result folder into one table, and says in plain sentences what is wrong with them.

A run ``<arm>_<model>_<data>_seed<k>`` is ``<run>.jsonl`` (ours, or verl's file logger) or, where there is no jsonl,
``<run>.log`` (verl's console lines ``step:N - key:value - ...``); ``<run>/run.json`` tells what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from Verl.analysis.runs import identical, packed
from Verl.analysis.runs.run_file import LEDGER, TEST, RunFile, as_table, listed, read_run


class Runs(NamedTuple):
    """``table``: a row per run and step (IDENTITY, ``step``, a column per metric); ``problems``: one sentence each;
    ``broken``: run -> how many of its values are NaN or infinite, over all metrics; ``same_as``: pair -> arm -> the arm
    whose logs it repeats (`Verl.analysis.runs.identical`)."""

    table: pd.DataFrame
    problems: list[str]
    broken: Mapping[str, int] = {}
    same_as: Mapping[str, Mapping[str, str]] = {}

    def stands_for(self, pair: str, arm: str) -> str:
        """The arm whose logs an arm repeats, or itself."""
        return self.same_as.get(pair, {}).get(arm, arm)


def _one_per_seed(runs: list[RunFile]) -> tuple[list[RunFile], list[str]]:
    """Of two runs of one pair, arm and seed the finished, then the longer, then the first by name stays."""
    groups: dict[tuple, list[RunFile]] = defaultdict(list)
    for run in runs:
        groups[run.identity["pair"], run.identity["arm"], run.identity["seed"]].append(run)
    kept, problems = [], []
    for (pair, arm, seed), group in groups.items():
        group.sort(key=lambda run: (run.identity["status"] != "finished", -max(run.rows), run.name))
        kept.append(group[0])
        if len(group) > 1:
            others = listed(run.name for run in group[1:])
            problems.append(
                f"{arm} on {pair}: {len(group)} runs of seed {seed}; {group[0].name} is used, {others} left out"
            )
    return kept, problems


def _by_arm(runs: list[RunFile]) -> dict[str, dict[str, list[RunFile]]]:
    """Pair -> arm -> runs in the order of their seeds."""
    grouped: dict[str, dict[str, list[RunFile]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.identity["pair"], run.identity["arm"], run.identity["seed"])):
        grouped[run.identity["pair"]][run.identity["arm"]].append(run)
    return grouped


def _mixed_configs(runs: list[RunFile]) -> list[str]:
    problems = []
    for pair, arms in _by_arm(runs).items():
        for arm, group in arms.items():
            seeds_of: dict[str, list[int]] = defaultdict(list)
            for run in group:
                if run.identity["config_hash"] is not None:
                    seeds_of[str(run.identity["config_hash"])].append(run.identity["seed"])
            if len(seeds_of) > 1:
                parts = "; ".join(f"{config[:12]} (seed {listed(seeds)})" for config, seeds in sorted(seeds_of.items()))
                problems.append(f"{arm} on {pair}: {len(seeds_of)} configurations under one name, not one arm: {parts}")
    return problems


def _missing_seeds(runs: list[RunFile]) -> list[str]:
    """A seed is missing in an arm if half of the pair's arms have it, or if it is a gap in the arm's own seeds."""
    problems = []
    for pair, arms in _by_arm(runs).items():
        seeds_of = {arm: {run.identity["seed"] for run in group} for arm, group in arms.items()}
        everyone = set().union(*seeds_of.values())
        usual = {seed for seed in everyone if 2 * sum(seed in seeds for seeds in seeds_of.values()) >= len(seeds_of)}
        for arm, seeds in seeds_of.items():
            missing = sorted((usual | set(range(min(seeds), max(seeds)))) - seeds)
            if missing:
                problems.append(f"{arm} on {pair}: seed {listed(missing)} missing (has {listed(sorted(seeds))})")
    return problems


def _repeated_logs(runs: list[RunFile]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Pair -> arm -> the arm whose logs it repeats, and a sentence for each."""
    same_as, sentences = {}, []
    for pair, arms in _by_arm(runs).items():
        logs = {
            arm: {run.identity["seed"]: identical.signature(run.series) for run in group} for arm, group in arms.items()
        }
        same_as[pair] = identical.same_as(logs)
        sentences += [identical.sentence(arm, leader, pair, logs) for arm, leader in same_as[pair].items()]
    return same_as, sentences


def load_runs(result_dir: Path | str, wanted: Callable[[str], bool] = lambda key: True) -> Runs:
    """All runs under ``result_dir``, one row per run and step, and the list of what is wrong with them.

    Args:
        result_dir: the folder of the jsonl and log files; a missing or empty one gives an empty table and a problem.
        wanted: which metrics to keep; with hundreds of runs reading only the evaluations is faster.
    """
    folder = Path(result_dir)
    files = packed.find(folder, "*.jsonl")
    stems = {path.stem for path in files}
    files += [path for path in packed.find(folder, "*.log") if path.stem not in stems]
    read = [read_run(path, wanted) for path in files]
    problems = [problem for run in read for problem in run.problems]
    for path in packed.find(folder, "*/run.json"):
        if path.parent.name not in {file.stem for file in files}:
            problems.append(f"{path.parent.name}: has a run.json but neither jsonl nor log")
    kept, twice = _one_per_seed([run for run in read if run.rows])
    if not kept:
        problems.append("no run found in the result folder")
    broken = {run.name: len(run.broken) for run in kept}
    same_as, repeated = _repeated_logs(kept)
    problems += twice + _mixed_configs(kept) + _missing_seeds(kept) + repeated
    return Runs(as_table(kept), problems, broken, same_as)


def points_of(rows: pd.DataFrame, metric: str, axis: str) -> tuple[pd.DataFrame, str] | None:
    """The rows where a metric is a number and the axis is known, and the axis's column; None if there are none.

    Args:
        axis: `steps`, or a budget of `LEDGER`.
    """
    column = "step" if axis == "steps" else LEDGER[axis]
    if metric not in rows or column not in rows:
        return None
    rows = rows[np.isfinite(rows[metric].astype(float)) & rows[column].notna()]
    return None if rows.empty else (rows, column)


def evaluation_files(result_dir: Path | str, run: str) -> dict[int, Path]:
    """Step -> parquet file of one run's per-question evaluations, by step; every file holds all splits."""
    files = packed.find_evaluations(Path(result_dir) / run)
    return dict(sorted((int(path.stem[5:]), path) for path in files if path.stem[5:].isdigit()))


def question_scores(path: Path, split: str = "test", rule: str = "strict") -> pd.Series:
    """Mean score of each question over its samples, by (data source, index) in order; empty if the split is not there."""
    return question_samples(path, split, rule).mean(axis=1)


def question_samples(path: Path, split: str = "test", rule: str = "strict") -> pd.DataFrame:
    """Score of each question (rows, by (data source, index) in order) and sample (columns, by number); NaN where a question
    lacks one. The file of an evaluation at either end of a run may hold more samples than those between."""
    return _question_samples(path, packed.stamp(path), split, rule)


@lru_cache(maxsize=4096)  # the reference's files are asked for once per arm and table
def _question_samples(path: Path, version: tuple[int, ...], split: str, rule: str) -> pd.DataFrame:
    question = ["data_source", "index"]
    numbered = ["sample"] if "sample" in packed.column_names(path) else []
    rows = packed.read_rows(path, ["split", *question, *numbered, rule])
    table = rows.filter(pc.equal(rows["split"], split)).to_pandas()
    if not numbered:
        table["sample"] = table.groupby(question).cumcount()
    return table.groupby([*question, "sample"])[rule].mean().unstack("sample").sort_index()


def last_scores(rows: pd.DataFrame, metric: str = TEST) -> tuple[int, np.ndarray] | None:
    """The last step at which an arm was evaluated, and its seeds' values there; None if it never was.

    Args:
        rows: of one arm on one pair.
    """
    if metric not in rows:
        return None
    rows = rows[np.isfinite(rows[metric].astype(float))]
    if rows.empty:
        return None
    last = int(rows["step"].max())
    return last, rows.loc[rows["step"] == last, metric].to_numpy(dtype=float)
