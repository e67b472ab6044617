"""Draws one factor of the study: train and test Pass@1 of its arms against a budget, one column per pair.

A picture depends on the data alone: matplotlib's own settings are reset, dates and versions are kept out of the files,
so that the same runs give the same bytes. What is not there is named in the picture, never drawn as zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, NullLocator

from Verl.analysis.figures.layout import LEFT, LEFT_WIDE, LINE, any_number, lay_out, save, settings
from Verl.analysis.runs import identical
from Verl.analysis.runs.run_file import TEST, listed
from Verl.analysis.runs.table import Runs, points_of
from Verl.analysis.stats import seed_interval
from Verl.analysis.style import COLUMN_WIDTH, PAGE_WIDTH, Look, arm_looks
from Verl.design.declared import AXES

ArmsOfPairs = Mapping[str, Sequence[str]]  # pair -> arms; a column each, in this order


class Panel(NamedTuple):
    """One row of a figure: its axis label, the metrics of which the first that a run logs is drawn, and what it is called
    in notes. ``share``: whether values lie in 0 to 1, where intervals are cut off."""

    label: str
    metrics: tuple[str, ...]
    name: str
    share: bool = True

    @property
    def room(self) -> float:
        """Inches that its label and numbers take."""
        return (LEFT if self.share else LEFT_WIDE) + LINE * self.label.count("\n")


TRAIN_PANEL = Panel("train Pass@1", ("eval/train/pass@1", "train/reward_mean"), "train Pass@1")
TEST_PANEL = Panel("test Pass@1", (TEST,), "test Pass@1")
DYNAMICS = (  # what training does beside Pass@1, in every factor's figure of them
    Panel("response length", ("train/response_length_mean",), "the response length", share=False),
    Panel("KL to reference", ("actor/kl_loss",), "the KL to the reference", share=False),
    Panel("entropy", ("actor/entropy",), "the entropy", share=False),
    Panel("constant groups", ("train/constant_groups",), "constant groups"),
)
DYNAMICS_HEIGHT = 0.8  # inches a panel
_BAND_LIMIT = 3  # more bands than this hide each other: then every arm gets one error bar at its end
_LOG_FROM = 10.0  # arms whose budgets differ by more than this factor need a logarithmic axis to be seen side by side
_BAR_ROOM = 0.03  # of the panel's width, for each bar
_ROUND = [1, 2, 2.5, 5, 10]


class Drawn(NamedTuple):
    """The files of a figure, and the notes that stand in it (missing runs, single seeds)."""

    files: list[Path]
    notes: list[str]


class MeanCurve(NamedTuple):
    """Mean over seeds per evaluation: budget, mean, interval (NaN where there is one seed), and how many seeds."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def mean_curve(rows: pd.DataFrame, metric: str, axis: str, share: bool = True) -> MeanCurve | None:
    """Curve of one arm on one pair from its rows; None if the metric or the budget is not logged.

    Seeds meet at steps; on another axis a point stands at their mean budget at that step. ``share``: the interval is cut
    off at 0 and 1.
    """
    found = points_of(rows, metric, axis)
    if found is None:
        return None
    rows, column = found
    points = []
    for _, group in rows.groupby("step"):
        values = group[metric].to_numpy(dtype=float)
        low, high = seed_interval(values)[1:] if len(values) > 1 else (np.nan, np.nan)
        points.append((group[column].mean(), values.mean(), low, high))
    x, mean, low, high = np.array(sorted(points)).T
    if share:
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return MeanCurve(x, mean, low, high, rows["seed"].nunique())


def _draw_arm(ax, look: Look, curve: MeanCurve, banded: bool) -> None:
    every = max(1, round(len(curve.x) / 10))
    ax.plot(
        curve.x,
        curve.mean,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markevery=every,
        markeredgewidth=0.0,
        zorder=3,
    )
    if banded and curve.seeds > 1:
        ax.fill_between(
            curve.x,
            curve.low,
            curve.high,
            color=look.colour,
            alpha=0.14,
            linewidth=0.0,
            zorder=1,
        )


def _draw_bars(ax, curves: dict[str, MeanCurve], looks: Mapping[str, Look]) -> None:
    """The interval of every arm's last point, side by side right of the panel's last point."""
    for i, (arm, curve) in enumerate(curves.items()):
        known = np.flatnonzero(np.isfinite(curve.low))
        if known.size == 0:
            continue
        mean, low, high = (part[known[-1]] for part in curve[1:4])
        # x in parts of the axis, outside of it, and y in the panel's units: the bars take no room from the curves
        place = 1.025 + _BAR_ROOM * i
        ax.errorbar(
            place,
            mean,
            yerr=[[mean - low], [high - mean]],
            color=looks[arm].colour,
            marker=looks[arm].marker,
            markersize=2.2,
            markeredgewidth=0.0,
            elinewidth=0.7,
            clip_on=False,
            transform=ax.get_yaxis_transform(),
            zorder=4,
        )


def _curves(rows: pd.DataFrame, arms: Sequence[str], panel: Panel, axis: str, pair: str) -> tuple[dict, list[str]]:
    """Arm -> curve of one panel, and what has to be said about them."""
    curves, notes = {}, []
    for arm in arms:
        of_arm = rows[rows["arm"] == arm]
        if of_arm.empty:
            continue
        for metric in panel.metrics:
            curve = mean_curve(of_arm, metric, axis, panel.share)
            if curve is not None:
                curves[arm] = curve
                if curve.seeds < (seeds := of_arm["seed"].nunique()):
                    notes.append(f"{arm} on {pair}: {panel.name} is logged by {curve.seeds} of {seeds} seeds.")
                if metric != panel.metrics[0]:
                    notes.append(f"{arm} on {pair}: {panel.name} is the mean reward of the training batch.")
                break
        else:
            notes.append(f"Not drawn: {arm} on {pair} logs no {panel.name} against {AXES[axis]}.")
    return curves, notes


def _without_start(curve: MeanCurve) -> MeanCurve:
    """The curve without its points at budget 0, which a logarithmic axis cannot show (it would draw a false level)."""
    spent = curve.x > 0
    return MeanCurve(*(part[spent] for part in curve[:4]), curve.seeds)


def _draw_panel(ax, curves: dict[str, MeanCurve], looks: Mapping[str, Look], axis: str, narrow: bool) -> list[str]:
    """One panel; returns a note if the axis had to be logarithmic."""
    ends = [curve.x[-1] for curve in curves.values() if curve.x[-1] > 0]
    logarithmic = axis != "steps" and bool(ends) and max(ends) > _LOG_FROM * min(ends)
    if logarithmic:
        curves = {arm: _without_start(curve) for arm, curve in curves.items() if curve.x[-1] > 0}
    for arm, curve in curves.items():
        _draw_arm(ax, looks[arm], curve, banded=len(curves) <= _BAND_LIMIT)
    if len(curves) > _BAND_LIMIT:
        _draw_bars(ax, curves, looks)
    if not curves:
        ax.text(0.5, 0.5, "no run found", transform=ax.transAxes, ha="center", va="center", color="#555555")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    if logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        return ["Logarithmic axis: the evaluation before training, at no cost, is not on it."]
    ax.xaxis.set_major_locator(MaxNLocator(2 if narrow else 5, steps=_ROUND))
    if axis not in ("steps", "hours"):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlim(0, 1.02 * max(ends, default=1.0))
    return []


def missing_note(table: pd.DataFrame, arms: ArmsOfPairs) -> list[str]:
    """Which arms have no run, on which pairs."""
    present = set(zip(table["pair"], table["arm"]))
    where: dict[str, list[str]] = {}
    for pair, of_pair in arms.items():
        for arm in of_pair:
            if (pair, arm) not in present:
                where.setdefault(arm, []).append(pair)
    together: dict[tuple, list[str]] = {}
    for arm, without in where.items():
        together.setdefault(tuple(without), []).append(arm)
    return [f"No run found, so not drawn, on {', '.join(on)}: {', '.join(names)}." for on, names in together.items()]


def identical_note(runs: Runs, arms: ArmsOfPairs) -> list[str]:
    """Which arms lie on top of each other because their logs are identical."""
    return [
        f"Identical logs on {pair}, so one line hides the other: {', '.join(group)}."
        for pair, of_pair in arms.items()
        for group in identical.groups(runs.same_as.get(pair, {}), of_pair)
    ]


def seed_note(rows: pd.DataFrame, drawn: Sequence[str], kind: str) -> str:
    """What the lines and intervals (``kind``: bands, bars) are, and how many seeds stand behind them."""
    counts = rows[rows["arm"].isin(drawn)].groupby(["pair", "arm"])["seed"].nunique()
    if counts.empty:
        return ""
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    if counts.max() == 1:
        return "One seed per arm: no interval over seeds can be drawn."
    single = [f"{arm} on {pair}" for (pair, arm), count in counts.items() if count == 1]
    alone = f" One seed, so no interval: {listed(single)}." if single else ""
    return f"Mean over {seeds} seeds; {kind}: 95 % t interval over seeds.{alone}"


def with_values(rows: pd.DataFrame, panels: Sequence[Panel]) -> pd.DataFrame:
    """The rows that have a value of some panel's metric."""
    metrics = [metric for panel in panels for metric in panel.metrics if metric in rows]
    return rows[rows[metrics].notna().any(axis=1)]


@contextmanager
def our_style() -> Iterator[None]:
    """Our settings and nothing of the user's matplotlibrc."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
        style = settings()
    with matplotlib.rc_context(style):
        yield


def new_figure(rows: int, pairs: Sequence[str]) -> tuple[Figure, np.ndarray, bool]:
    """A figure with a column per pair, its axes (rows x pairs), and whether the columns are narrow."""
    width = COLUMN_WIDTH if len(pairs) == 1 else min(PAGE_WIDTH, 0.6 + 2.1 * len(pairs))
    figure, narrow = Figure(figsize=(width, 4.0)), len(pairs) > 3
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, len(pairs), sharex="col", squeeze=False)
    for ax, pair in zip(grid[0], pairs):
        ax.set_title(pair.replace("_", "\n" if narrow else " / "))
    return figure, grid, narrow


def plot_question(
    runs: Runs,
    arms: ArmsOfPairs,
    path: Path | str,
    title: str = "",
    axis: str = "steps",
    panels: Sequence[Panel] = (TRAIN_PANEL, TEST_PANEL),
    panel_height: float = 1.25,
) -> Drawn:
    """Draw the arms' train and test Pass@1, or other ``panels``, against ``axis`` (a key of ``AXES``) to ``path`` + .pdf
    and .png.

    One column per pair, the mean over seeds, a 95 % t interval over seeds.
    """
    with our_style():
        figure, notes = draw_question(runs, arms, title, axis, panels=panels, panel_height=panel_height)
        return Drawn(save(figure, Path(path)), notes)


def draw_question(
    runs: Runs,
    arms: ArmsOfPairs,
    title: str,
    axis: str,
    notes_inside: bool = True,
    panels: Sequence[Panel] = (TRAIN_PANEL, TEST_PANEL),
    panel_height: float = 1.25,
) -> tuple[Figure, list[str]]:
    """The figure of ``plot_question`` and its notes, within ``our_style``; the notes stand in it if they are to."""
    if axis not in AXES:
        raise ValueError(f"unknown axis {axis!r}; known: {', '.join(AXES)}")
    table, arms = runs.table, dict(arms) or {"(no pair)": []}
    figure, grid, narrow = new_figure(len(panels), list(arms))
    looks = arm_looks(dict.fromkeys(arm for of_pair in arms.values() for arm in of_pair))
    notes, drawn, kinds = [], [], {}
    for column, (pair, of_pair) in enumerate(arms.items()):
        for ax, panel in zip(grid[:, column], panels):
            curves, said = _curves(table[table["pair"] == pair], of_pair, panel, axis, pair)
            notes += said + _draw_panel(ax, curves, looks, axis, narrow)
            if not panel.share:
                ax.yaxis.set_major_formatter(any_number())
            drawn += [arm for arm in curves if arm not in drawn]
            kinds |= {("bands" if len(curves) <= _BAND_LIMIT else "bars at the end"): None} if curves else {}
        if not narrow or column == len(arms) // 2:  # side by side, narrow panels' labels would touch
            grid[-1, column].set_xlabel(AXES[axis])
    for ax, panel in zip(grid[:, 0], panels):
        ax.set_ylabel(panel.label)
    rows = with_values(table[table["pair"].isin(list(arms))], panels)
    seeds = seed_note(rows, drawn, " or ".join(sorted(kinds)))
    said = [seeds, *identical_note(runs, arms), *missing_note(table, arms), *dict.fromkeys(notes)]
    notes = [note for note in said if note]
    bars = _BAR_ROOM * len(drawn) if len(drawn) > _BAND_LIMIT else 0.0
    legend = {arm: looks[arm] for of_pair in arms.values() for arm in of_pair if arm in drawn}
    left = max(panel.room for panel in panels)
    inside, between = notes if notes_inside else [], 0.14 if all(panel.share for panel in panels) else 0.22  # powers of ten
    lay_out(figure, legend, title, inside, len(panels), bars, narrow, left, panel_height, between)
    return figure, notes


def dynamics_panels(runs: Runs, arms: ArmsOfPairs) -> list[Panel]:
    """Those of ``DYNAMICS`` that a run of these arms logs."""
    drawn = [arm for of_pair in arms.values() for arm in of_pair]
    rows = runs.table[runs.table["pair"].isin(list(arms)) & runs.table["arm"].isin(drawn)]
    return [panel for panel in DYNAMICS if panel.metrics[0] in rows and rows[panel.metrics[0]].notna().any()]
