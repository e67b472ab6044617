"""Does an arm learn faster, or does it end higher? Saturating fits of all arms, and their parameters compared.

Asymptotes, and logarithms of midpoints, are compared like scores: by ``compare_with``, paired by seed and point, all arms that
a pair compares with one reference as one family (docs/statistics.md). Each of the two has its own alpha.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from Verl.analysis import stats
from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs, points_of
from Verl.analysis.verdicts.compare import study_family
from Verl.analysis.verdicts.judge import MARGIN, Key
from Verl.analysis.verdicts.pairing import START
from Verl.statistics.saturation import FEWEST, Fit, Refusal, fit_curve

if TYPE_CHECKING:
    from Verl.statistics.compare import ArmComparison

FITTED = (TEST, "train/pass@1", "train/reward_mean")  # the first that a pair logs often enough
_SHARE = re.compile(r"/(pass@\d+|flexible|format)$")
_LONG_ENOUGH = 0.8  # of the arm's longest run; a run that broke off earlier does not shorten the others' curve


@dataclass(frozen=True)
class ArmFit:
    """One arm's curve and what was fitted to it.

    Args:
        seeds: in the order of ``y_SX``. steps_X, x_X: where it was evaluated, in steps and on the axis. found: the fit, or
            why there is none.
    """

    pair: str
    arm: str
    metric: str
    seeds: tuple[int, ...]
    steps_X: np.ndarray
    x_X: np.ndarray
    y_SX: np.ndarray
    found: Fit | Refusal

    @property
    def fit(self) -> Fit | None:
        return self.found if isinstance(self.found, Fit) else None

    def interval(self, name: str) -> stats.Interval:
        """A parameter, ``asymptote``, ``midpoint`` or ``exponent``, with its 95 % interval for other seeds and points."""
        value = getattr(self.fit, name)
        own_SX = getattr(self.fit, "asymptote_SX" if name == "asymptote" else f"log_{name}_SX")
        if len(own_SX) < 2:
            return stats.Interval(value, math.nan, math.nan)
        _, low, high, _ = stats.paired_two_way(own_SX, np.zeros_like(own_SX))
        return stats.Interval(value, low, high) if name == "asymptote" else stats.Interval(value, _exp(low), _exp(high))


def _exp(value: float) -> float:
    return math.exp(min(value, 50.0))


@dataclass(frozen=True)
class FitComparison:
    """Two arms' fits. ``asymptote``: of their difference; ``midpoint``: of the difference of the logarithms; None, with the
    reason in ``why_not``, where one of the two has no fit."""

    pair: str
    arm: str
    base_line: str
    asymptote: ArmComparison | None = None
    midpoint: ArmComparison | None = None
    why_not: str = ""

    @property
    def words(self) -> str:
        """The verdict: "learns faster", "ends higher", both, or what is not shown."""
        if self.asymptote is None:
            return f"cannot be compared: {self.why_not}"
        speed = {"worse": "learns faster", "better": "learns slower"}.get(self.midpoint.verdict)
        end = {"better": "ends higher", "worse": "ends lower", "equivalent": "ends alike"}.get(self.asymptote.verdict)
        return ", ".join(word for word in (speed, end) if word) or "undecided"


@dataclass(frozen=True)
class StudyFits:
    """All fits of a study against one axis: (pair, arm) -> fit; key -> comparison; pair -> the metric that was fitted."""

    axis: str
    metric: Mapping[str, str]
    fits: Mapping[tuple[str, str], ArmFit]
    comparisons: Mapping[Key, FitComparison]


def is_share(metric: str) -> bool:
    """Whether values lie between 0 and 1 by definition."""
    return bool(_SHARE.search(metric))


def _curves(rows: pd.DataFrame, metric: str, axis: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray] | None:
    """Seeds, steps, budgets (mean over seeds), values seeds x points; of the steps that all runs that got far have."""
    found = points_of(rows, metric, axis)
    if found is None:
        return None
    rows, column = found
    ends = rows.groupby("seed")["step"].max()
    rows = rows[rows["seed"].isin(ends[ends >= _LONG_ENOUGH * ends.max()].index)]
    values = rows.pivot_table(index="step", columns="seed", values=metric).dropna()
    spent = rows.groupby("step")[column].mean().reindex(values.index).to_numpy(dtype=float)
    rising = np.r_[True, np.diff(spent) > 0] if spent.size else np.array([], dtype=bool)
    if not rising.any():
        return None
    seeds, steps = tuple(int(seed) for seed in values.columns), values.index.to_numpy(dtype=float)
    return seeds, steps[rising], spent[rising], values.to_numpy(dtype=float)[rising].T


def arm_fit(rows: pd.DataFrame, pair: str, arm: str, metric: str, axis: str = "steps", margin: float = MARGIN) -> ArmFit:
    """The fit of one arm on one pair from its rows. ``margin``: a smaller change of a share over the curve is none."""
    curves = _curves(rows, metric, axis)
    if curves is None:
        none = np.array([])
        return ArmFit(pair, arm, metric, (), none, none, none, Refusal(f"it logs no {metric} at steps that its seeds share"))
    seeds, steps_X, x_X, y_SX = curves
    share = is_share(metric)
    found = fit_curve(x_X, y_SX, limits=(0.0, 1.0) if share else None, smallest_gain=margin if share else 0.0)
    return ArmFit(pair, arm, metric, seeds, steps_X, x_X, y_SX, found)


def fitted_metric(rows: pd.DataFrame) -> str:
    """What to fit on a pair: test Pass@1 if most arms have points enough, else that of the responses drawn for training."""
    for metric in FITTED:
        if metric in rows:
            logged = rows[rows[metric].notna() & (rows["step"] > 0)]
            points = logged.groupby("arm")["step"].nunique().reindex(rows["arm"].unique(), fill_value=0)
            if points.median() >= FEWEST:
                return metric
    return TEST


def _table(fits: list[ArmFit], seeds: tuple[int, ...], name: str) -> dict[str, np.ndarray]:
    """Arm -> what the reference's seeds and the points say of a parameter, NaN where the arm lacks a seed.

    Arms evaluated at other points than the reference (the first) are compared by their seeds' means alone.
    """
    alike = all(np.array_equal(one.steps_X, fits[0].steps_X) for one in fits)
    found = {}
    for one in fits:
        own_SX = getattr(one.fit, name) if alike else getattr(one.fit, name).mean(axis=1, keepdims=True)
        own = dict(zip(one.seeds, own_SX))
        found[one.arm] = np.array([own.get(seed, np.full(own_SX.shape[1], np.nan)) for seed in seeds])
    return found


def _compared(
    base: ArmFit, fits: list[ArmFit], margin: float | None, alpha: float
) -> dict[str, tuple[ArmComparison, ArmComparison]]:
    """Arm -> what is found of the asymptote and of the log midpoint; of arms that share a seed with the reference."""
    able = [base, *(one for one in fits if set(one.seeds) & set(base.seeds))]
    tables = [_table(able, base.seeds, name) for name in ("asymptote_SX", "log_midpoint_SX")]
    judged = [stats.compare_with(table, base.arm, margin=m, alpha=alpha) for table, m in zip(tables, (margin, None))]
    return {one.arm: (judged[0][one.arm], judged[1][one.arm]) for one in able[1:]}


def _why_not(arm: ArmFit, base: ArmFit) -> str:
    for one in (arm, base):
        if one.fit is None:
            return f"{one.arm} is not fitted: {one.found.reason}"
        if len(one.seeds) < 2:
            return f"{one.arm} has one seed, and noise over seeds needs two"
    return "the two have no seed in common"


def study_fits(
    runs: Runs, axis: str = "steps", metric: str | None = None, margin: float = MARGIN, alpha: float = 0.05
) -> StudyFits:
    """Fit every arm of every pair, and compare the fits as the study compares the arms.

    Args:
        metric: of the jsonl; None for ``fitted_metric`` of each pair. margin: the largest difference of asymptotes that does
            not matter. alpha: of each family.
    """
    metrics, fits = {}, {}
    for pair, rows in runs.table.groupby("pair"):
        metrics[pair] = metric or fitted_metric(rows)
        for arm, of_arm in rows.groupby("arm"):
            fits[pair, arm] = arm_fit(of_arm, str(pair), str(arm), metrics[pair], axis, margin)
    families: dict[tuple[str, str], list[str]] = {}
    for pair, arm, base in study_family(runs.table):
        if base != START and (pair, arm) in fits and (pair, base) in fits:
            families.setdefault((pair, base), []).append(arm)
    found: dict[Key, FitComparison] = {}
    for (pair, base), arms in families.items():
        reference = fits[pair, base]
        apart = {arm: runs.stands_for(pair, arm) for arm in arms if runs.stands_for(pair, arm) != runs.stands_for(pair, base)}
        able = [fits[pair, one] for one in dict.fromkeys(apart.values()) if _able(fits[pair, one]) and one != base]
        share = is_share(metrics[pair])
        compared = _compared(reference, able, margin if share else None, alpha) if able and _able(reference) else {}
        for arm in arms:
            leader = apart.get(arm, base)
            if leader in compared:
                found[pair, arm, base] = FitComparison(pair, arm, base, *compared[leader])
            else:
                same = "their logs are identical" if arm not in apart else _why_not(fits[pair, arm], reference)
                found[pair, arm, base] = FitComparison(pair, arm, base, why_not=same)
    return StudyFits(axis, metrics, fits, found)


def _able(one: ArmFit) -> bool:
    return one.fit is not None and len(one.seeds) > 1
