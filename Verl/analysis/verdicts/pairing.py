"""What two arms can be compared on: the step or budget that both reach, the seeds and the questions that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.analysis.runs.run_file import LEDGER
from Verl.analysis.runs.table import Runs, evaluation_files, question_samples

START = "its start"
_RULES = {"pass@1": "strict", "flexible": "flexible", "format": "format"}


@dataclass(frozen=True)
class Pairing:
    """Both sides of a comparison at its point.

    Args:
        at: step or budget. ours, theirs: seed -> the logged metric there, every seed that has it.
        answers: (arm's, base line's) seed -> scores, questions x samples, over the paired seeds; None if a file lacks.
    """

    pair: str
    arm: str
    base_line: str
    at: float
    ours: Mapping[int, float]
    theirs: Mapping[int, float]
    answers: tuple[Mapping[int, pd.DataFrame], Mapping[int, pd.DataFrame]] | None = None

    @property
    def seeds(self) -> list[int]:
        return sorted(self.ours.keys() & self.theirs.keys())

    @property
    def not_paired(self) -> list[int]:
        return sorted(self.ours.keys() ^ self.theirs.keys())

    @cached_property
    def questions(self) -> pd.Index:
        """The questions of all files of both sides; empty without files."""
        if self.answers is None:
            return pd.Index([])
        frames = [frame for side in self.answers for frame in side.values()]
        if all(frame.index.equals(frames[0].index) for frame in frames):
            return frames[0].index
        return pd.Index(sorted(set.intersection(*(set(frame.index) for frame in frames))))

    def grids(self) -> list[np.ndarray] | None:
        """Both sides' mean scores, paired seeds x common questions; None without files."""
        if self.answers is None:
            return None
        return [np.array([mean_scores(side[seed], self.questions) for seed in self.seeds]) for side in self.answers]


def scores_on(frame: pd.DataFrame, questions: pd.Index) -> np.ndarray:
    """Scores of these questions, questions x samples."""
    return (frame if frame.index.equals(questions) else frame.loc[questions]).to_numpy(dtype=float)


def mean_scores(frame: pd.DataFrame, questions: pd.Index) -> np.ndarray:
    """Each question's mean over the samples that it has."""
    return np.nanmean(scores_on(frame, questions), axis=1)


class Curves:
    """The logged metric of every run of a study, by pair, arm and seed."""

    def __init__(self, runs: Runs, axis: str, metric: str):
        self.axis, self.metric = axis, metric
        column = "step" if axis == "steps" else LEDGER[axis]
        wanted = dict.fromkeys(("pair", "arm", "seed", "run", "config_hash", column, metric))
        there = [name for name in wanted if name in runs.table]
        self._arms = dict(iter(runs.table[there].groupby(["pair", "arm"], sort=False)))
        self._column = column
        self._known: dict[tuple[str, str], dict[int, pd.Series]] = {}

    def of(self, pair: str, arm: str) -> dict[int, pd.Series]:
        """Seed -> metric over the budget, where both are known."""
        if (pair, arm) not in self._known:
            self._known[pair, arm] = self._read(pair, arm)
        return self._known[pair, arm]

    def _read(self, pair: str, arm: str) -> dict[int, pd.Series]:
        rows = self._arms.get((pair, arm))
        if rows is None or self.metric not in rows or self._column not in rows:
            return {}
        rows = rows[np.isfinite(rows[self.metric].astype(float)) & rows[self._column].notna()]
        return {int(seed): group.set_index(self._column)[self.metric].astype(float) for seed, group in rows.groupby("seed")}

    def has_runs(self, pair: str, arm: str) -> bool:
        return (pair, arm) in self._arms

    def configurations(self, pair: str, arm: str) -> int:
        """How many different ones the arm's runs have."""
        return self._arms[pair, arm]["config_hash"].nunique()

    def run_names(self, pair: str, arm: str) -> dict[int, str]:
        """Seed -> name of the run."""
        rows = self._arms[pair, arm].drop_duplicates("seed")
        return dict(zip(rows["seed"].astype(int), rows["run"]))


def meeting_point(ours: Mapping[int, pd.Series], theirs: Mapping[int, pd.Series], axis: str) -> float | None:
    """The last step that both arms evaluate, or the largest budget that all runs of both arms reach.

    Seeds of one arm spend slightly different budgets; a run that broke off (under 80 % of the arm's longest) does not
    pull the point down for the others but drops out.
    """
    if axis == "steps":
        common = {x for curve in ours.values() for x in curve.index} & {x for c in theirs.values() for x in c.index}
        return max(common, default=None)
    ends = [[curve.index[-1] for curve in curves.values()] for curves in (ours, theirs)]
    return min(end for of_arm in ends for end in of_arm if end >= 0.8 * max(of_arm))


def _value_at(curve: pd.Series, at: float, axis: str) -> float | None:
    """The curve at a step that was evaluated, or at a budget, straight between evaluations; None if it ends before."""
    if axis == "steps":
        return float(curve[at]) if at in curve.index else None
    if not curve.index[0] <= at <= curve.index[-1]:
        return None
    return float(np.interp(at, curve.index, curve.to_numpy()))


def _answers(
    result_dir: Path | str, runs: Mapping[int, str], at: int, seeds: Sequence[int], metric: str
) -> dict[int, pd.DataFrame] | None:
    """Seed -> scores of one arm's evaluation; None if a file, or the split in it, lacks."""
    _, split, rule = metric.split("/")
    found = {}
    for seed in seeds:
        path = evaluation_files(result_dir, runs[seed]).get(at)
        if path is None:
            return None
        found[seed] = question_samples(path, split, _RULES[rule])
        if found[seed].empty:
            return None
    return found


def with_answers(pairing: Pairing, known: Curves, result_dir: Path | str | None) -> Pairing:
    """The pairing with the stored answers, if all its paired seeds have them and share at least two questions."""
    if result_dir is None or not pairing.seeds:
        return pairing
    start = pairing.base_line == START
    sides = []
    for arm, at in ((pairing.arm, pairing.at), (pairing.arm if start else pairing.base_line, 0 if start else pairing.at)):
        side = _answers(result_dir, known.run_names(pairing.pair, arm), int(at), pairing.seeds, known.metric)
        if side is None:
            return pairing
        sides.append(side)
    whole = Pairing(**{**_fields(pairing), "answers": tuple(sides)})
    return whole if len(whole.questions) > 1 else pairing


def _fields(pairing: Pairing) -> dict:
    return {name: getattr(pairing, name) for name in Pairing.__dataclass_fields__}


def pairing_at(
    pair: str, arm: str, base: str, at: float, axis: str, ours: Mapping[int, pd.Series], theirs: Mapping[int, pd.Series]
) -> Pairing:
    """Both sides' values at the point."""
    sides = [{seed: _value_at(curve, at, axis) for seed, curve in side.items()} for side in (ours, theirs)]
    known = [{seed: value for seed, value in side.items() if value is not None} for side in sides]
    return Pairing(pair, arm, base, at, *known)
