"""Curves in text: a chart of braille dots (2 x 4 to a character) and sparklines, or plain ASCII where there is no Unicode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of U+2800: [row][column] within a character


class Series(NamedTuple):
    """One curve of a chart: points in increasing x, and rich's style for them."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """The values as one line of bars, the last one at the right; more values than characters are averaged in groups.

    A value that is no number stays blank; equal values give bars of middle height.
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    groups = min(width, len(values))
    means = []
    for i in range(groups):
        group = [v for v in values[i * len(values) // groups : (i + 1) * len(values) // groups] if math.isfinite(v)]
        means.append(sum(group) / len(group) if group else math.nan)
    known = [v for v in means if math.isfinite(v)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    places = [
        3 if span == 0 else round((v - low) / span * (len(bars) - 1)) if math.isfinite(v) else None for v in means
    ]
    return "".join(" " if place is None else bars[place] for place in places)


class _Canvas:
    """Dots and the style of each character; a later curve takes over the characters that it touches."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.bits = [[0] * width for _ in range(height)]
        self.styles = [[""] * width for _ in range(height)]

    def dot(self, x: int, y: int, style: str) -> None:
        """``x`` from the left, ``y`` from the bottom, in dots."""
        x = min(max(x, 0), 2 * self.width - 1)
        from_top = 4 * self.height - 1 - min(max(y, 0), 4 * self.height - 1)
        row, column = from_top // 4, x // 2
        self.bits[row][column] |= _DOTS[from_top % 4][x % 2]
        self.styles[row][column] = style

    def line(self, a: tuple[int, int], b: tuple[int, int], style: str) -> None:
        steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
        for i in range(steps + 1):
            self.dot(round(a[0] + (b[0] - a[0]) * i / steps), round(a[1] + (b[1] - a[1]) * i / steps), style)

    def rows(self, ascii_only: bool) -> list[Text]:
        lines = []
        for bits, styles in zip(self.bits, self.styles):
            line = Text()
            for bit, style in zip(bits, styles):
                line.append((("*" if bit else " ") if ascii_only else chr(0x2800 + bit)), style=style or None)
            lines.append(line)
        return lines


def _bounds(series: Sequence[Series], floor: float, ceiling: float) -> tuple[float, float]:
    """Lowest and highest y, rounded outwards to tenths and kept within floor and ceiling; at least two tenths apart."""
    values = [y for one in series for _, y in one.points]
    low, high = math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10
    if high - low < 0.15:
        low, high = low - 0.1, high + 0.1
    return max(low, floor), min(high, ceiling)


def chart(
    series: Sequence[Series], width: int, height: int, end: float, floor=0.0, ceiling=1.0, ascii_only: bool = False
) -> list[Text]:
    """The curves over x from 0 to ``end`` with labels at both axes: ``height`` + 1 lines of at most ``width`` characters.

    Points that are no numbers are left out; without any point: no line.
    """
    finite = [one._replace(points=[p for p in one.points if math.isfinite(p[1])]) for one in series]
    finite = [one for one in finite if one.points]
    if not finite or width < 12 or height < 2:
        return []
    low, high = _bounds(finite, floor, ceiling)
    margin, end = 5, max(end, *(one.points[-1][0] for one in finite), 1.0)
    canvas = _Canvas(width - margin, height)

    def place(point: tuple[float, float]) -> tuple[int, int]:
        share = (point[1] - low) / (high - low)
        return round(point[0] / end * (2 * canvas.width - 1)), round(share * (4 * height - 1))

    for one in finite:
        places = [place(point) for point in one.points]
        for a, b in zip(places, places[1:] or places):
            canvas.line(a, b, one.style)
    lines = []
    for i, row in enumerate(canvas.rows(ascii_only)):
        label = {0: f"{high:.1f}", height - 1: f"{low:.1f}"}.get(i, "")
        lines.append(Text(f"{label:>3} ") + Text("|" if ascii_only else "┤" if label else "│", style="dim") + row)
    last = f"step {end:g}"
    lines.append(Text(" " * margin + "0" + last.rjust(canvas.width - 1), style="dim"))
    return lines
