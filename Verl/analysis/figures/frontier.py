"""The iso-compute frontier: what n rollouts x B queries x steps give at equally many generated tokens (arXiv 2603.12151).

Arms that differ from the base line in queries and rollouts alone. Above: each arm's curve over the tokens that it generated,
and the upper edge of all. Below: at a few budgets that several n reach, every arm against its n, the best of each n joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from Verl.analysis import stats
from Verl.analysis.figures.curves import TEST_PANEL, Panel, our_style
from Verl.analysis.figures.layout import NothingToDraw, any_number, lay_out
from Verl.analysis.runs.run_file import LEDGER, listed
from Verl.analysis.runs.table import Runs
from Verl.analysis.style import COLUMN_WIDTH, DASHED, DOTTED, GREY, PAGE_WIDTH, SOLID, Look, arm_label, arm_looks
from Verl.design.declared import declared
from Verl.trainer.naming import parse_arm

_BUDGETS, _DASHES = 3, (SOLID, DASHED, DOTTED)
_TOKENS = EngFormatter(sep="", places=0)
_APART = 1.6  # factor between two budgets
_NEAR = 0.06  # a run that ends this much before a budget still counts at it, with its last value
_FEWEST = 3  # values of n that a budget must be reached by


@dataclass(frozen=True)
class Reached:
    """An arm at a budget: mean over seeds and its t interval, NaN with one seed; ``steps``: how many the budget paid for."""

    arm: str
    rollouts: int
    queries: int
    steps: float
    value: stats.Interval


@dataclass(frozen=True)
class Slice:
    """All arms that reach a budget, the best first."""

    pair: str
    budget: float
    arms: tuple[Reached, ...]

    def best_of_each(self) -> list[Reached]:
        """The best arm of every n, in the order of n."""
        found: dict[int, Reached] = {}
        for one in self.arms:
            found.setdefault(one.rollouts, one)
        return [found[n] for n in sorted(found)]


def family(table: pd.DataFrame, pair: str) -> dict[str, tuple[int, int]]:
    """Arm -> (n, B), of the arms with runs that have the base line's estimator and nothing else of their own."""
    base = parse_arm(declared().base_line)
    found = {}
    for arm in table.loc[table["pair"] == pair, "arm"].unique():
        parsed = parse_arm(arm)
        if parsed and base and (parsed.estimator, parsed.size, parsed.rest) == (base.estimator, base.size, base.rest):
            found[str(arm)] = (parsed.rollouts, parsed.queries)
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


Curves = Mapping[str, Sequence[pd.DataFrame]]  # arm -> per seed: tokens, value, step; without the start


def curves_of(table: pd.DataFrame, pair: str, metric: str) -> dict[str, list[pd.DataFrame]]:
    """The curves of the family on a pair; arms without the metric or the ledger left out."""
    column = LEDGER["tokens"]
    if metric not in table or column not in table:
        return {}
    rows = table[(table["pair"] == pair) & (table["step"] > 0)]
    rows = rows[np.isfinite(rows[metric].astype(float)) & rows[column].notna()]
    found = {}
    for arm in family(table, pair):
        of_arm = rows[rows["arm"] == arm].rename(columns={column: "tokens", metric: "value"})
        seeds = [group.sort_values("step")[["tokens", "value", "step"]].astype(float) for _, group in of_arm.groupby("seed")]
        if seeds:
            found[arm] = seeds
    return found


def _between(x, y, budget):
    """Straight between evaluations on a logarithmic axis of tokens, as the curves are drawn."""
    return np.interp(np.log(budget), np.log(x), y)


def _at(curves: Sequence[pd.DataFrame], budget: float) -> tuple[np.ndarray, float] | None:
    """Every seed's value at a budget, and the steps; None if a seed does not reach it or begins after it."""
    if not all(one["tokens"].iloc[0] <= budget <= (1.0 + _NEAR) * one["tokens"].iloc[-1] for one in curves):
        return None
    values = np.array([_between(one["tokens"], one["value"], budget) for one in curves])
    return values, float(np.mean([_between(one["tokens"], one["step"], budget) for one in curves]))


def _slice(pair: str, budget: float, curves: Curves, sizes: Mapping[str, tuple[int, int]]) -> Slice:
    reached = []
    for arm, seeds in curves.items():
        found = _at(seeds, budget)
        if found is not None:
            values, steps = found
            interval = stats.seed_interval(values) if values.size > 1 else stats.Interval(float(values[0]), np.nan, np.nan)
            reached.append(Reached(arm, *sizes[arm], steps, interval))
    return Slice(pair, budget, tuple(sorted(reached, key=lambda one: -one.value.estimate)))


def slices(table: pd.DataFrame, pair: str, metric: str) -> list[Slice]:
    """At most three budgets, at least 1.6 times apart, that the most arms and at least three values of n reach; rising."""
    curves, sizes = curves_of(table, pair, metric), family(table, pair)
    ends = sorted({float(np.mean([one["tokens"].iloc[-1] for one in seeds])) for seeds in curves.values()})
    tried = [_slice(pair, end, curves, sizes) for end in ends]
    usable = [one for one in tried if len({reached.rollouts for reached in one.arms}) >= _FEWEST]
    chosen: list[Slice] = []
    for one in sorted(usable, key=lambda one: (-len(one.arms), one.budget)):
        if len(chosen) < _BUDGETS and all(max(one.budget, c.budget) >= _APART * min(one.budget, c.budget) for c in chosen):
            chosen.append(one)
    return sorted(chosen, key=lambda one: one.budget)


def sentence(one: Slice, name: str) -> str:
    """The best allocation of a budget, and which others its interval does not leave behind."""
    best, *others = one.arms
    low = best.value.low
    beside = [arm_label(other.arm) for other in others if not (other.value.estimate < low)]
    interval = f" ({low:.3f} to {best.value.high:.3f})" if np.isfinite(low) else " (one seed)"
    near = f"; within its interval: {listed(beside)}" if beside and np.isfinite(low) else ""
    return (
        f"{one.pair} at {_TOKENS(one.budget)} generated tokens, {len(one.arms)} arms: highest {name} "
        f"{best.value.estimate:.3f}{interval} with n = {best.rollouts}, {best.queries} queries, {best.steps:.0f} steps{near}. "
        "The highest of several is too high."
    )


def _draw_curves(ax, curves: Curves, looks: Mapping[str, Look]) -> None:
    drawn = []
    for arm, seeds in curves.items():
        mean = pd.concat(seeds).groupby("step").mean()
        x, y = mean["tokens"].to_numpy(), mean["value"].to_numpy()
        look = {"color": looks[arm].colour, "linestyle": looks[arm].dash, "marker": looks[arm].marker}
        ax.plot(x, y, markeredgewidth=0.0, markevery=max(1, len(x) // 8), linewidth=0.8, zorder=3, **look)
        drawn.append((x, y))
    grid = np.geomspace(min(x[0] for x, _ in drawn), max(x[-1] for x, _ in drawn), 400)
    inside = [np.where((grid >= x[0]) & (grid <= x[-1]), _between(x, y, grid), -np.inf) for x, y in drawn]
    edge = np.maximum.accumulate(np.max(inside, axis=0))
    ax.plot(grid, edge, color=GREY, alpha=0.35, linewidth=3.2, zorder=2, solid_capstyle="butt", solid_joinstyle="round")
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(_TOKENS)


def _draw_slices(ax, found: Sequence[Slice], looks: Mapping[str, Look], narrow: bool) -> None:
    for one, dash in zip(found, _DASHES):
        best = one.best_of_each()
        n, values = np.log2([each.rollouts for each in best]), [each.value.estimate for each in best]
        ax.plot(n, values, color=GREY, linestyle=dash, linewidth=0.9, zorder=2)
        for reached in one.arms:
            x, value, look = np.log2(reached.rollouts), reached.value, looks[reached.arm]
            if reached in best and np.isfinite(value.low):
                ax.vlines(x, value.low, value.high, color=look.colour, linewidth=0.8, alpha=0.6, zorder=1)
            style = {"color": look.colour, "marker": look.marker, "markersize": 3.6, "markeredgewidth": 0.0}
            ax.plot([x], [value.estimate], zorder=4, **style)
    ticks = sorted({reached.rollouts for one in found for reached in one.arms})
    ax.xaxis.set_major_locator(FixedLocator(np.log2(ticks)))
    ax.set_xticklabels([str(n) if not (narrow and i % 2) else "" for i, n in enumerate(ticks)])
    if not ticks:
        said = f"no budget is reached\nby {_FEWEST} values of n"
        ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", va="center", color="#555555", fontsize=6)


def _budget_handles(found: Mapping[str, Sequence[Slice]]) -> list[Line2D]:
    """The legend's entries of the budgets: of one pair with their tokens, of several by rank."""
    several, ranks = len(found) > 1, ("lowest", "second", "third")
    most = max(found.values(), key=len)
    labels = [f"{rank} budget" for rank in ranks] if several else [f"at {_TOKENS(one.budget)} tokens" for one in most]
    return [Line2D([], [], color=GREY, linestyle=dash, label=label) for dash, label, _ in zip(_DASHES, labels, most)]


def draw_frontier(
    runs: Runs, pairs: Sequence[str], title: str = "", panel: Panel = TEST_PANEL, notes_inside: bool = True
) -> tuple[Figure, list[str], list[Slice]]:
    """The figure, within our style, its notes and its slices. Raises NothingToDraw where no pair has two arms of the family."""
    metric = panel.metrics[0]
    curves = {pair: curves_of(runs.table, pair, metric) for pair in pairs}
    curves = {pair: of_pair for pair, of_pair in curves.items() if len(of_pair) > 1}
    if not curves:
        wanted = f"{declared().base_line} in queries and rollouts alone have {metric} over tokens"
        raise NothingToDraw(f"no two arms that differ from {wanted}; nothing drawn")
    found = {pair: slices(runs.table, pair, metric) for pair in curves}
    looks, narrow = arm_looks(dict.fromkeys(arm for of_pair in curves.values() for arm in of_pair)), len(curves) > 3
    notes = [
        "Above: grey, the highest reached by any arm at no more tokens. Below: lines join the best B of each n; bars: its 95 % "
        f"t interval over seeds. A run within {_NEAR:.0%} of a budget counts as there. The highest of several is too high."
    ]
    if len(found) > 1:
        notes += [f"{pair}: {', '.join(_TOKENS(one.budget) for one in of_pair)} tokens." for pair, of_pair in found.items()]
    with our_style():
        width = COLUMN_WIDTH if len(curves) == 1 else min(PAGE_WIDTH, 0.6 + 2.1 * len(curves))
        figure = Figure(figsize=(width, 4.0))
        FigureCanvasAgg(figure)
        grid = figure.subplots(2, len(curves), squeeze=False)
        for (pair, of_pair), column in zip(curves.items(), grid.T):
            column[0].set_title(pair.replace("_", "\n" if narrow else " / "))
            _draw_curves(column[0], of_pair, looks)
            _draw_slices(column[1], found[pair], looks, narrow)
            column[0].set_xlabel("tokens generated", labelpad=1.0)
            column[1].set_xlabel("rollouts per query, n")
            for ax in column:
                ax.tick_params(axis="x", labelsize=5.0 if narrow else 6.0, pad=1.5)
                ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
                if not panel.share:
                    ax.yaxis.set_major_formatter(any_number())
        grid[0, 0].set_ylabel(panel.label)
        grid[1, 0].set_ylabel(f"{panel.label}\nat equal tokens")
        inside, left = notes if notes_inside else [], panel.room + 0.12
        lay_out(figure, looks, title, inside, 2, 0.0, narrow, left, between=0.4, more=_budget_handles(found))
    return figure, notes, [one for of_pair in found.values() for one in of_pair]
