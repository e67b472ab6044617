"""Draws where the arms of one scale end: the last test Pass@1, or another metric, against the number that makes the arm.

One panel per pair. Nine curves on six pairs hide each other; nine points in order do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from Verl.analysis.figures.curves import (
    TEST_PANEL,
    ArmsOfPairs,
    Drawn,
    Panel,
    identical_note,
    missing_note,
    new_figure,
    our_style,
    seed_note,
    with_values,
)
from Verl.analysis.figures.layout import any_number, lay_out, save
from Verl.analysis.runs.run_file import arm_numbers, listed
from Verl.analysis.runs.table import Runs, last_scores
from Verl.analysis.stats import seed_interval
from Verl.analysis.style import Look, arm_looks

LEVELS = {"queries": "queries per step", "rollouts": "rollouts per query"}


def _level(arm: str, level: str) -> int:
    numbers = arm_numbers(arm)
    return numbers["queries"] if level == "queries" else numbers["trained"] // max(1, numbers["queries"])


def _draw_panel(
    ax, rows: pd.DataFrame, looks: Mapping[str, Look], level: str, narrow: bool, metric: str, share: bool
) -> list[int]:
    """One panel, the start as a line; returns the steps at which the arms end."""
    ends = []
    for place, (arm, look) in enumerate(looks.items()):
        last = last_scores(rows[rows["arm"] == arm], metric)
        if last is None:
            continue
        step, values = last
        ends.append(step)
        low, high = seed_interval(values)[1:] if len(values) > 1 else (np.nan, np.nan)
        mean = values.mean()
        if np.isfinite(low):
            low, high = (max(low, 0.0), min(high, 1.0)) if share else (low, high)
            ax.vlines(place, low, high, color=look.colour, linewidth=1.1, zorder=2)
        ax.plot([place], [mean], color=look.colour, marker=look.marker, markersize=4.5, markeredgewidth=0.0, zorder=3)
    starts = rows.loc[(rows["step"] == 0) & rows["arm"].isin(looks), metric] if metric in rows else rows.iloc[:0]
    if len(starts.dropna()):
        ax.axhline(float(starts.mean()), color="#777777", linestyle=(0, (3, 2)), linewidth=0.7, zorder=1)
    ax.set_xlim(-0.6, len(looks) - 0.4)
    every = 2 if narrow and len(looks) > 5 else 1  # names side by side would touch
    ax.set_xticks(range(len(looks)), ["" if i % every else str(_level(arm, level)) for i, arm in enumerate(looks)])
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if not share:
        ax.yaxis.set_major_formatter(any_number())
    ax.grid(axis="x", visible=False)
    return ends


def draw_levels(
    runs: Runs, arms: ArmsOfPairs, title: str, level: str, notes_inside: bool = True, panel: Panel = TEST_PANEL
) -> tuple[Figure, list[str]]:
    """The figure of ``plot_levels`` and its notes, within ``our_style``."""
    table = runs.table
    arms = {pair: [arm for arm in of_pair if arm_numbers(arm)] for pair, of_pair in arms.items()} or {"(no pair)": []}
    figure, grid, narrow = new_figure(1, list(arms))
    looks, ends = arm_looks(dict.fromkeys(arm for of_pair in arms.values() for arm in of_pair)), {}
    for column, (pair, of_pair) in enumerate(arms.items()):
        rows, of_looks = table[table["pair"] == pair], {arm: looks[arm] for arm in of_pair}
        ends[pair] = _draw_panel(grid[0, column], rows, of_looks, level, narrow, panel.metrics[0], panel.share)
        if not narrow or column == len(arms) // 2:
            grid[0, column].set_xlabel(LEVELS[level])
        if narrow:
            grid[0, column].tick_params(axis="x", labelsize=5.0)
    grid[0, 0].set_ylabel(f"last {panel.label}")
    rows = with_values(table[table["pair"].isin(list(arms))], [panel])
    uneven = [f"{pair} (steps {min(e)} to {max(e)})" for pair, e in ends.items() if e and min(e) < max(e)]
    notes = [
        seed_note(rows, [arm for of_pair in arms.values() for arm in of_pair], "bars"),
        "Dashed: before training." if panel == TEST_PANEL or (rows["step"] == 0).any() else "",
        f"Not all arms end at the same step: {listed(uneven)}." if uneven else "",
        *identical_note(runs, arms),
        *missing_note(table, arms),
    ]
    notes = [note for note in notes if note]
    lay_out(figure, {}, title, notes if notes_inside else [], 1, 0.0, narrow, panel.room)
    return figure, notes


def plot_levels(
    runs: Runs, arms: ArmsOfPairs, path: Path | str, title: str, level: str, panel: Panel = TEST_PANEL
) -> Drawn:
    """Draw the mean over seeds of every arm's last test Pass@1, or of another metric, with its 95 % t interval, to
    ``path`` + .pdf and .png.

    ``level``: a key of LEVELS, the number that stands at the axis; arms in the given order, equally far apart.
    """
    with our_style():
        figure, notes = draw_levels(runs, arms, title, level, panel=panel)
        return Drawn(save(figure, Path(path)), notes)
