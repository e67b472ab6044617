"""Figures as SVG within a page: they take its text colour, so that they can be read in light and dark, and need no file."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.figure import Figure

from Verl.analysis.figures.curves import ArmsOfPairs, draw_question, our_style
from Verl.analysis.figures.levels import draw_levels
from Verl.analysis.runs.table import Runs
from Verl.design.declared import AXES, Factor

# letters as paths: the same picture whatever fonts a reader has; a fixed salt: the same names of clip paths every time
_SVG = {"svg.fonttype": "path", "svg.hashsalt": "bandit", "path.simplify": True}
_COLOURS = {"#000000": "currentColor", "#dddddd": "var(--grid)", "#777777": "var(--grey)", "#555555": "currentColor",
            "#0072b2": "var(--blue)"}  # fmt: skip
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]+)')


def _to_svg(figure: Figure, key: str, description: str) -> str:
    """The figure as an svg element; ``key`` makes its ids unique within the page."""
    sink = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_SVG):
        figure.savefig(sink, format="svg", transparent=True, metadata=metadata)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    used = {match[2] for match in _REFERENCE.finditer(text)}
    text = _ID.sub(lambda match: f'id="{key}-{match[1]}"' if match[1] in used else "", text)
    text = _REFERENCE.sub(lambda match: f"{match[1]}{key}-{match[2]}", text)
    for colour, variable in _COLOURS.items():
        text = text.replace(f": {colour}", f": {variable}")
    width, height = figure.get_size_inches()
    escaped = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    opening = (
        f'<svg role="img" aria-label="{escaped}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * 72:g} {height * 72:g}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


class InlineFigure:
    """One figure of the page: ``svg``, ``caption``, ``notes``, and its ``columns`` (pairs), which say how wide it is."""

    def __init__(self, svg: str, caption: str, notes: list[str], columns: int):
        self.svg, self.caption, self.notes, self.columns = svg, caption, notes, columns


def factor_figures(runs: Runs, factor: Factor, arms: ArmsOfPairs, said: str) -> list[InlineFigure]:
    """The figures of one factor: against each of its axes, and where its arms end. ``said``: its verdict, for the ear."""
    found = []
    with our_style():
        for axis in factor.axes:
            figure, notes = draw_question(runs, arms, "", axis, notes_inside=False)
            caption = f"Train and test Pass@1 against {AXES[axis]}."
            found.append((figure, axis, caption, notes))
        if factor.level:
            figure, notes = draw_levels(runs, arms, "", factor.level, notes_inside=False)
            found.append((figure, "final", "Last test Pass@1 of every arm.", notes))
        return [
            InlineFigure(_to_svg(figure, f"{factor.name}-{key}", f"{caption} {said}"), caption, notes, len(arms))
            for figure, key, caption, notes in found
        ]
