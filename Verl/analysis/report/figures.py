"""The figures of the report's sections, with their captions."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from Verl.analysis.figures.curves import DYNAMICS_HEIGHT, ArmsOfPairs, draw_question, dynamics_panels, our_style
from Verl.analysis.figures.levels import draw_levels
from Verl.analysis.report.svg import to_svg
from Verl.analysis.runs.table import Runs
from Verl.design.declared import AXES, Factor


def paged(figures: Sequence[Figure], key: str, caption: str, notes: list[str], said: str, columns: int) -> list[InlineFigure]:
    """The pages of one figure; caption and notes stand below the last."""
    with our_style():
        svgs = [to_svg(figure, f"{key}-{number}", f"{caption} {said}") for number, figure in enumerate(figures)]
    last = len(svgs) - 1
    return [InlineFigure(svg, caption if i == last else "", notes if i == last else [], columns) for i, svg in enumerate(svgs)]


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
        if panels := dynamics_panels(runs, arms):
            size = {"panels": panels, "panel_height": DYNAMICS_HEIGHT}
            figure, notes = draw_question(runs, arms, "", "steps", notes_inside=False, **size)
            names = ", ".join(panel.name.removeprefix("the ") for panel in panels)
            found.append((figure, "dynamics", f"{names[0].upper()}{names[1:]} against training steps.", notes))
        return [
            InlineFigure(to_svg(figure, f"{factor.name}-{key}", f"{caption} {said}"), caption, notes, len(arms))
            for figure, key, caption, notes in found
        ]
