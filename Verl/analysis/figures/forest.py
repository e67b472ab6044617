"""A forest plot: one row per comparison, grouped by factor, with its interval, the margin and the verdict.

Pages of at most ``PAGE_HEIGHT`` inches, so that any number of factors stays readable; everything is placed in inches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, StrMethodFormatter

from Verl.analysis.figures.layout import (
    any_number,
    legend_room,
    note_lines,
    notes_room,
    write_legend,
    write_notes,
    write_title,
)
from Verl.analysis.style import BLUE, COLUMN_WIDTH, GREEN, GREY, PAGE_WIDTH, VERMILLION

PAGE_HEIGHT = 9.2  # inches: what a page of a paper leaves
_ROW, _HEADING = 0.115, 0.19
_LOOKS = {"better": (BLUE, ">"), "worse": (VERMILLION, "<"), "equivalent": (GREEN, "s"), "undecided": (GREY, "o")}
_LONGEST = 34  # characters of a row's label; the middle of a longer one is left out
_RATIOS = np.array([1 / 64, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 64])


class ForestInterval(NamedTuple):
    """One interval; ``verdict``: better, worse, equivalent or undecided; ``low`` and ``high`` infinite if unknown."""

    value: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Row:
    """One comparison: its label, and an effect per column, None where nothing can be said."""

    label: str
    effects: tuple[ForestInterval | None, ...]


@dataclass(frozen=True)
class Group:
    """The rows under one heading."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Column:
    """One panel of every group: its title, its axis label, the margin (None: no band), whether effects are logarithms of
    ratios, of which the smaller is the better one, and the words of the verdicts that it can have."""

    title: str
    label: str
    margin: float | None = None
    ratio: bool = False
    share: bool = True
    words: Mapping[str, str] = field(default_factory=dict)

    def look(self, verdict: str) -> tuple[str, str, str]:
        """Colour, marker, and word: blue is good, and the marker points to where the interval lies."""
        colour, marker = _LOOKS[verdict]
        if self.ratio and verdict in ("better", "worse"):
            colour = _LOOKS["worse" if verdict == "better" else "better"][0]
        return colour, marker, self.words.get(verdict, verdict)


def _short(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    keep = most - 1
    return f"{text[: keep - keep // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(keep // 2):]}"


def limit_of(effects: Sequence[ForestInterval], margin: float | None) -> float:
    """Half of a column's width: all intervals, but for those far beyond three quarters of them, which end in an arrow."""
    ends = [abs(end) for one in effects for end in (one.low, one.high, one.value) if np.isfinite(end)]
    least = 2.0 * margin if margin else 1e-9
    if not ends:
        return max(least, 1.0)
    widths = [max(abs(one.low), abs(one.high)) for one in effects if np.isfinite(one.high)]
    usual = 1.6 * float(np.quantile(widths or ends, 0.75))
    return max(least, min(1.08 * max(ends), usual))


def pages(groups: Sequence[Group], room: float = PAGE_HEIGHT - 1.5) -> list[list[Group]]:
    """The groups page by page, none split unless it alone is higher than a page."""
    most = max(1, int((room - _HEADING) / _ROW))
    parts = [
        Group(group.heading + (" (continued)" if start else ""), group.rows[start : start + most])
        for group in groups
        for start in range(0, len(group.rows), most)
    ]
    found: list[list[Group]] = []
    used = room
    for group in parts:
        need = _HEADING + _ROW * len(group.rows)
        if used + need > room:
            found.append([])
            used = 0.0
        found[-1].append(group)
        used += need
    return found


def _draw_rows(ax: Axes, rows: Sequence[Row], number: int, column: Column, limit: float) -> None:
    """One group's intervals in one column; the first row on top."""
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-limit, limit)
    if column.margin is not None:
        ax.axvspan(-column.margin, column.margin, color=GREY, alpha=0.16, linewidth=0.0, zorder=0)
    ax.axvline(0.0, color=GREY, linewidth=0.6, zorder=1)
    for place, row in enumerate(rows):
        if (one := row.effects[number]) is not None:
            _draw_effect(ax, place, one, column, limit)


def _draw_effect(ax: Axes, place: int, one: ForestInterval, column: Column, limit: float) -> None:
    colour, marker, _ = column.look(one.verdict)
    ax.hlines(place, max(one.low, -limit), min(one.high, limit), color=colour, linewidth=1.0, zorder=2)
    arrow = {"color": colour, "markersize": 3.2, "markeredgewidth": 0.0, "clip_on": False, "zorder": 3}
    if one.low < -limit:
        ax.plot([-limit], [place], marker=CARETLEFT, **arrow)
    if one.high > limit:
        ax.plot([limit], [place], marker=CARETRIGHT, **arrow)
    if abs(one.value) <= limit:
        face = "none" if one.verdict == "undecided" else colour
        style = {"color": colour, "markerfacecolor": face, "markersize": 3.0, "markeredgewidth": 0.7}
        ax.plot([one.value], [place], marker=marker, zorder=4, **style)


def _style_axis(ax: Axes, column: Column, limit: float, last: bool, wide: bool) -> None:
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_visible(last)
    ax.grid(axis="y", visible=False)
    if column.ratio:
        inside = _RATIOS[np.abs(np.log(_RATIOS)) <= limit]
        ax.xaxis.set_major_locator(FixedLocator(np.log(inside)))
        ax.xaxis.set_major_formatter(FixedFormatter([f"\N{MULTIPLICATION SIGN}{ratio:g}" for ratio in inside]))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4 if wide else 2, steps=[1, 2, 2.5, 5, 10], symmetric=True))
        # Of a share no zeros at the ends: three labels stand side by side in a narrow column.
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if column.share else any_number())
    ax.tick_params(axis="x", labelsize=5.5, length=2.0 if last else 0.0, labelbottom=last, pad=1.5)


def _texts(row: Row, columns: Sequence[Column]) -> Iterator[str]:
    """What stands right of a row of one column: the difference and the verdict."""
    one = row.effects[0]
    if one is not None:
        form = f"{one.value:+.3f}" if columns[0].share else f"{one.value:+.3g}"
        yield f"{form} {columns[0].look(one.verdict)[2]}".replace("-", "\N{MINUS SIGN}")


class _Page:
    """One page: its measures in inches, and what is drawn into it."""

    def __init__(self, groups: Sequence[Group], columns: Sequence[Column], limits: Sequence[float], title: str, notes):
        self.groups, self.columns, self.limits = groups, columns, limits
        several = len(columns) > 2
        self.width, self.most = (PAGE_WIDTH, _LONGEST) if several else (COLUMN_WIDTH, 26)
        beside = 0.86 if len(columns) == 1 else 0.0  # for difference and verdict
        longest = max((len(_short(row.label, self.most)) for group in groups for row in group.rows), default=0)
        self.left, self.right, self.gap = 0.15 + 0.049 * longest, 0.07 + beside, 0.18 if several else 0.12
        self.panel = (self.width - self.left - self.right - self.gap * (len(columns) - 1)) / len(columns)
        handles = self._handles()
        ncols, legend = legend_room([handle.get_label() for handle in handles], self.width)
        lines = note_lines(notes, self.width)
        label = 0.28 + 0.1 * max(column.label.count("\n") for column in columns)
        self.above = (0.2 if title else 0.0) + (0.12 if any(column.title for column in columns) else 0.0)
        rows = sum(_HEADING + _ROW * len(group.rows) for group in groups)
        self.height = self.above + rows + label + legend + notes_room(lines)
        self.figure = Figure(figsize=(self.width, self.height))
        FigureCanvasAgg(self.figure)
        self._draw()
        if title:
            write_title(self.figure, title)
        write_notes(self.figure, lines)
        write_legend(self.figure, handles, ncols, notes_room(lines) + legend)

    def _handles(self) -> list[Line2D]:
        """The legend: the verdicts that are drawn."""
        drawn = [(column, one.verdict) for group in self.groups for row in group.rows
                 for column, one in zip(self.columns, row.effects) if one]  # fmt: skip
        looks = {column.look(verdict) for column, verdict in drawn}
        order = [column.look(verdict) for column in self.columns for verdict in _LOOKS]
        return [_verdict_handle(*look) for look in dict.fromkeys(order) if look in looks]

    def _text(self, x: float, y: float, text: str, **style) -> None:
        self.figure.text(x / self.width, y / self.height, text, **style)

    def _draw(self) -> None:
        top = self.height - self.above
        for number, column in enumerate(self.columns):
            if column.title:
                self._text(self._start(number) + self.panel / 2, top + 0.01, column.title, fontsize=6.0, ha="center")
        for group in self.groups:
            top -= _HEADING
            heading = _short(group.heading, int(self.width * 18.5))
            self._text(0.06, top + 0.025, heading, fontsize=6.0, weight="bold", va="bottom")
            high = _ROW * len(group.rows)
            for number, column in enumerate(self.columns):
                self._draw_panel(group, number, column, top - high, high)
            for place, row in enumerate(group.rows):
                self._write_row(row, top - _ROW * (place + 0.5))
            top -= high

    def _start(self, number: int) -> float:
        return self.left + number * (self.panel + self.gap)

    def _draw_panel(self, group: Group, number: int, column: Column, bottom: float, high: float) -> None:
        place = (self._start(number) / self.width, bottom / self.height, self.panel / self.width, high / self.height)
        ax, last = self.figure.add_axes(place), group is self.groups[-1]
        _draw_rows(ax, group.rows, number, column, self.limits[number])
        _style_axis(ax, column, self.limits[number], last, self.panel > 1.1)
        if last and (len(self.columns) < 4 or number == len(self.columns) // 2):  # side by side, long labels would touch
            ax.set_xlabel(column.label, fontsize=6.0, labelpad=1.5)

    def _write_row(self, row: Row, y: float) -> None:
        label = _short(row.label, self.most)
        self._text(self.left - 0.08, y, label, fontsize=5.5, ha="right", va="center_baseline")
        for text in _texts(row, self.columns) if len(self.columns) == 1 else ():
            self._text(self.width - self.right + 0.07, y, text, fontsize=5.5, va="center_baseline")


def _verdict_handle(colour: str, marker: str, word: str) -> Line2D:
    face = "none" if marker == _LOOKS["undecided"][1] else colour
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=3.0, markeredgewidth=0.7, label=word)


def _rounded(group: Group) -> Group:
    """With the digits in which every processor agrees, and more than can be seen: the same logs draw the same file."""

    def shown(one: ForestInterval | None) -> ForestInterval | None:
        return one and one._replace(value=round(one.value, 4), low=round(one.low, 4), high=round(one.high, 4))

    return Group(group.heading, tuple(Row(row.label, tuple(map(shown, row.effects))) for row in group.rows))


def draw_forest(groups: Sequence[Group], columns: Sequence[Column], title: str, notes: Sequence[str]) -> list[Figure]:
    """All pages, within ``our_style``; every column has one scale on all pages, and the notes stand on the last."""
    groups = [_rounded(group) for group in groups]
    rows = [row for group in groups for row in group.rows]
    effects = [[one for row in rows if (one := row.effects[number]) is not None] for number in range(len(columns))]
    limits = [limit_of(of_column, column.margin) for of_column, column in zip(effects, columns)]
    cut = any(max(-one.low, one.high) > limit for of_column, limit in zip(effects, limits) for one in of_column)
    noted = [*notes, "Arrow: the interval goes on."] if cut else notes
    parts = pages(groups)
    return [_Page(part, columns, limits, title, noted if part is parts[-1] else []).figure for part in parts]
