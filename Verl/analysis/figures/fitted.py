"""The fitted curves of a pair: a panel per factor, the mean over seeds as points and the saturating fit as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from Verl.analysis.figures.any_metric import label_of
from Verl.analysis.figures.curves import our_style
from Verl.analysis.figures.layout import (
    LEFT,
    any_number,
    handle,
    legend_room,
    note_lines,
    notes_room,
    write_legend,
    write_notes,
    write_title,
)
from Verl.analysis.runs.drawn import TRAIN_PASS, over_all_drawn, why_unlike
from Verl.analysis.runs.run_file import listed
from Verl.analysis.runs.table import Runs
from Verl.analysis.style import PAGE_WIDTH, arm_label, arm_looks
from Verl.analysis.verdicts.factors import pairs_of
from Verl.analysis.verdicts.judge import MARGIN
from Verl.analysis.verdicts.saturation import ArmFit, FitComparison, StudyFits, is_share, study_fits
from Verl.design.declared import AXES, declared
from Verl.statistics.saturation import Fit

_ACROSS, _DOWN = 3, 5  # panels
_PANEL, _BETWEEN = 1.15, 0.4  # inches: height, and the room for a title and numbers below


def fits_of(runs: Runs, result_dir: Path, axis: str = "steps", metric: str | None = None, margin: float = MARGIN) -> StudyFits:
    """Every arm's fit and their comparisons (``study_fits``), but of arms whose metric is not of the same thing.

    `train/pass@1` is over all that a step drew, with dynamic sampling too (`Verl.analysis.runs.drawn`).
    """
    found = study_fits(over_all_drawn(runs), axis, metric, margin)
    apart = {}
    for key in found.comparisons:
        fitted = found.metric[key[0]]
        if reason := why_unlike(runs, result_dir, key, fitted, whole=fitted == TRAIN_PASS):
            apart[key] = FitComparison(*key, why_not=reason)
    return replace(found, comparisons={**found.comparisons, **apart})


def panels_of(runs: Runs, fits: StudyFits, pair: str) -> list[tuple[str, list[ArmFit]]]:
    """(title, the arms with a curve) of every factor that has one of them."""
    found = []
    for factor in declared().factors.values():
        arms = pairs_of(factor, runs.table, [pair]).get(pair, [])
        curves = [one for arm in arms if (one := fits.fits.get((pair, arm))) is not None and one.x_X.size]
        if curves:
            found.append((factor.title, curves))
    return found


def _rounded(fit: Fit) -> Fit:
    """With the digits in which least squares agree on every processor: the same curve to the eye, and the same file."""
    return replace(fit, **{name: float(f"{getattr(fit, name):.4g}") for name in ("start", "asymptote", "midpoint", "exponent")})


def _draw(ax, curves: Sequence[ArmFit], looks) -> None:
    for one in curves:
        look, mean_X = looks[one.arm], one.y_SX.mean(axis=0)
        points = {"marker": ".", "markersize": 2.6, "markeredgewidth": 0.0, "alpha": 0.7, "linestyle": "none"}
        ax.plot(one.x_X, mean_X, color=look.colour, zorder=2, **points)
        if one.fit is not None:
            x = np.linspace(0.0, one.x_X[-1], 101)
            ax.plot(x, _rounded(one.fit).at(x), color=look.colour, linestyle=look.dash, marker=look.marker, markevery=(10, 25),
                    markersize=2.4, markeredgewidth=0.0, linewidth=0.9, zorder=3)  # fmt: skip


def _page(parts, fits: StudyFits, pair: str, title: str, notes: Sequence[str], limits) -> Figure:
    arms = dict.fromkeys(one.arm for _, curves in parts for one in curves)
    looks, share = arm_looks(arms), is_share(fits.metric[pair])
    labels = [arm_label(arm) for arm in arms]
    columns, legend = legend_room(labels, PAGE_WIDTH)
    lines = note_lines(notes, PAGE_WIDTH)
    rows = -(-len(parts) // _ACROSS)
    above, foot = 0.2 if title else 0.0, 0.1 + legend + notes_room(lines)
    height = above + rows * (_PANEL + _BETWEEN) + 0.08 + foot
    figure = Figure(figsize=(PAGE_WIDTH, height))
    FigureCanvasAgg(figure)
    width = (PAGE_WIDTH - LEFT - 0.08 - 0.3 * (_ACROSS - 1)) / _ACROSS
    for place, (name, curves) in enumerate(parts):
        row, column = divmod(place, _ACROSS)
        bottom = height - above - 0.2 - _PANEL - row * (_PANEL + _BETWEEN)
        start = LEFT + column * (width + 0.3)
        ax = figure.add_axes((start / PAGE_WIDTH, bottom / height, width / PAGE_WIDTH, _PANEL / height))
        _draw(ax, curves, looks)
        ax.set_title(name, fontsize=6.5, pad=2.0)
        ax.set_ylim(*limits)
        ax.set_xlim(0, 1.02 * max(one.x_X[-1] for one in curves))
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.tick_params(labelsize=5.5, pad=1.5, labelleft=column == 0)
        if fits.axis not in ("steps", "hours"):
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        if not share:
            ax.yaxis.set_major_formatter(any_number())
        if column == 0:
            ax.set_ylabel(label_of(fits.metric[pair]), fontsize=6.0, labelpad=2.0)
        if place + _ACROSS >= len(parts):
            ax.set_xlabel(AXES[fits.axis], fontsize=6.0, labelpad=1.5)
    if title:
        write_title(figure, title)
    write_notes(figure, lines)
    write_legend(figure, [handle(looks[arm], arm_label(arm)) for arm in arms], columns, notes_room(lines) + legend)
    return figure


def draw_fits(runs: Runs, fits: StudyFits, pair: str, title: str = "") -> tuple[list[Figure], list[str]]:
    """Pages of panels, and the notes, which stand on the last; no page where no arm of a factor has a curve."""
    parts = panels_of(runs, fits, pair)
    if not parts:
        return [], []
    arms = dict.fromkeys(one.arm for _, curves in parts for one in curves)
    without = [arm for arm in arms if fits.fits[pair, arm].fit is None]
    refused = f"No fit, so points alone: {listed(without, 40)}." if without else ""
    notes = [f"Points: mean over seeds of {fits.metric[pair]}; lines: saturating fits.", refused]
    values = [value for _, curves in parts for one in curves for value in one.y_SX.mean(axis=0)]
    low, high = min(values), max(values)
    limits = (low - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0))
    most = _ACROSS * _DOWN
    cut = [parts[start : start + most] for start in range(0, len(parts), most)]
    with our_style():
        figures = [_page(part, fits, pair, title, [n for n in notes if n] if part is cut[-1] else [], limits) for part in cut]
    return figures, [note for note in notes if note]
