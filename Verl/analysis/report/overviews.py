"""The report's parts over all factors: forest, fits, frontier, train against test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from Verl.analysis import stats
from Verl.analysis.figures.fitted import draw_fits, fits_of
from Verl.analysis.figures.forests import fit_effects, forest_effects, train_test_effects
from Verl.analysis.figures.frontier import Reached, draw_frontier
from Verl.analysis.figures.layout import NothingToDraw
from Verl.analysis.report.figures import InlineFigure, paged
from Verl.analysis.report.run_tables import arms_in_order
from Verl.analysis.runs.table import Runs
from Verl.analysis.verdicts.generalisation import TrainTest, train_and_test
from Verl.analysis.verdicts.judge import Key, Verdict
from Verl.analysis.verdicts.pairing import START
from Verl.analysis.verdicts.saturation import FitComparison

_WIDE = 2  # an InlineFigure of a page's width


class FitRow(NamedTuple):
    """One arm's fit; intervals of 95 % over seeds; ``why_not`` where there is none."""

    arm: str
    seeds: int
    points: int
    asymptote: stats.Interval | None
    midpoint: stats.Interval | None
    exponent: stats.Interval | None
    why_not: str


class FitPart(NamedTuple):
    """The fits of one pair: figures, a row per arm, and the comparisons that could be made."""

    pair: str
    metric: str
    figures: list[InlineFigure]
    rows: list[FitRow]
    comparisons: list[FitComparison]


class SliceRow(NamedTuple):
    """One budget: its best allocation and those that its interval does not leave behind."""

    pair: str
    budget: float
    arms: int
    best: Reached
    beside: list[str]


class TrainTestPart(NamedTuple):
    """Learning and generalisation on one pair."""

    pair: str
    figures: list[InlineFigure]
    rows: list[tuple[Key, TrainTest]]


def forest(runs: Runs, result_dir: Path, margin: float, judged: Mapping[Key, Verdict]) -> list[InlineFigure]:
    """Every factor's effect; empty where nothing can be compared."""
    try:
        found = forest_effects(runs, result_dir, margin, judged=judged)
    except NothingToDraw:
        return []
    caption = "Differences of test Pass@1, factor by factor."
    columns = 1 if runs.table["pair"].nunique() < 3 else 4
    return paged(found.figures, "forest", caption, [], " ".join(found.lines[:3]), columns)


def fits(runs: Runs, result_dir: Path, margin: float) -> list[FitPart]:
    """The saturating fits of every pair."""
    found, parts = fits_of(runs, result_dir, margin=margin), []
    for pair, metric in found.metric.items():
        pages, _ = draw_fits(runs, found, pair)
        effects = fit_effects(runs, found, pair, margin)
        said = " ".join(effects.lines[:3])
        curves = paged(pages, f"fits-{pair}", f"Saturating fits of {metric} on {pair}.", [], said, _WIDE)
        both = paged(effects.figures, f"fits-effects-{pair}", "Does an arm end higher, or learn faster?", [], said, 1)
        rows = []
        for arm in arms_in_order(runs.table, pair):
            one = found.fits[pair, arm]
            values = [one.interval(name) if one.fit else None for name in ("asymptote", "midpoint", "exponent")]
            rows.append(FitRow(arm, len(one.seeds), one.x_X.size, *values, "" if one.fit else one.found.reason))
        with_asymptote = [one for key, one in found.comparisons.items() if key[0] == pair and one.asymptote is not None]
        parts.append(FitPart(pair, metric, curves + both, rows, with_asymptote))
    return parts


def frontier(runs: Runs) -> tuple[list[InlineFigure], list[SliceRow]]:
    """The iso-compute frontier and its budgets; empty where no arms differ in queries and rollouts alone."""
    try:
        figure, notes, slices = draw_frontier(runs, sorted(runs.table["pair"].unique()), notes_inside=False)
    except NothingToDraw:
        return [], []
    rows = []
    for one in slices:
        best, *others = one.arms
        beside = [other.arm for other in others if other.value.estimate >= best.value.low]
        rows.append(SliceRow(one.pair, one.budget, len(one.arms), best, beside))
    said = "; ".join(f"{row.pair}: {row.best.arm} at {row.budget:.3g} tokens" for row in rows)
    columns = runs.table["pair"].nunique()
    return paged([figure], "frontier", "Test Pass@1 at equally many generated tokens.", notes, said, columns), rows


def generalisation(runs: Runs, result_dir: Path, margin: float) -> list[TrainTestPart]:
    """Train against test on every pair that has both."""
    found, parts = train_and_test(runs, result_dir, margin=margin), []
    for pair in sorted(runs.table["pair"].unique()):
        effects = train_test_effects(runs, found, pair, margin)
        rows = [(key, one) for key, one in found.items() if key[0] == pair and key[2] != START and one.gap.verdict is not None]
        if effects.figures:
            figures = paged(effects.figures, f"generalisation-{pair}", f"Learning and generalisation on {pair}.", [], "", 1)
            parts.append(TrainTestPart(pair, figures, rows))
    return parts
