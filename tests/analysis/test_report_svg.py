"""Figures within a page are small, and the same: every place that matplotlib drew is there, to a hundredth of a point."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from Verl.analysis.report import svg

SVG = "{http://www.w3.org/2000/svg}"
X, Y = [0.0, 1.0, 2.5, 2.5, 7.0], [3.0, -1.0, 0.25, 0.25, 2.0]  # with a step of 0


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("M1 2L1.5 1.75L1.5 3z", "M1 2l.5-.25 0 1.25z"),
        ("M10.1 0L9.95 0L-0.05 0.5", "M10.1 0l-.15 0-10 .5"),
        ("M0 0L0 0M5 5L6 4zM1 1L2 2", "M0 0l0 0M5 5l1-1zM1 1l1 1"),
        ("M0 0L0.1 0.1L0.2 0.2L0.3 0.3", "M0 0l.1 .1 .1 .1 .1 .1"),
    ],
)
def test_a_line_in_steps_by_hand(path, steps):
    assert svg._steps(path) == steps
    assert places_of(steps) == pytest.approx(places_of(path))


def places_of(path: str) -> list[float]:
    """Both coordinates of all places of a path of M, L, l and z."""
    found, here = [], (0.0, 0.0)
    for stroke, numbers in re.findall(r"([MLl])([^MLlz]*)", path):
        values = [float(one) for one in re.findall(r"-?[\d.]+", numbers)]
        for x, y in zip(values[::2], values[1::2]):
            here = (here[0] + x, here[1] + y) if stroke == "l" else (x, y)
            found += here
    return found


def drawn() -> Figure:
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(X, Y, marker="o")
    axes.plot(X[:3], Y[:3], marker="s", linestyle="none")
    axes.fill_between(X, Y, [value + 1 for value in Y])
    return figure


def as_matplotlib_writes(figure: Figure) -> ElementTree.Element:
    sink = io.StringIO()
    with matplotlib.rc_context(svg._SVG):
        figure.savefig(sink, format="svg")
    return ElementTree.fromstring(sink.getvalue())


def test_lines_and_markers_stand_where_matplotlib_drew_them():
    ours = ElementTree.fromstring(svg.to_svg(drawn(), "key", "a line"))
    theirs = as_matplotlib_writes(drawn())
    lines = [line for line in straight(theirs) if len(line) >= 2 * len(X)]
    assert lines
    for line in lines:
        assert any(len(one) == len(line) and one == pytest.approx(line, abs=0.011) for one in straight(ours))

    hidden = [path for path in ours.iter(f"{SVG}path") if "marker:" in path.get("style", "")]
    along = [place for path in hidden for place in places_of(path.get("d"))]
    assert len(along) >= 2 * len(X)
    assert sorted(along + set_at(ours)) == pytest.approx(sorted(set_at(theirs)), abs=0.011)
    assert set(use_ids(ours)) <= {one.get("id") for one in ours.iter()}


def straight(root: ElementTree.Element) -> list[list[float]]:
    """The places of each path of straight lines, letters apart, which are scaled."""
    paths = [path.get("d") for path in root.iter(f"{SVG}path") if not path.get("transform")]
    return [places_of(path) for path in paths if not set("QC") & set(path)]


def set_at(root: ElementTree.Element) -> list[float]:
    """The places of what is set by `use`, letters apart."""
    return [float(use.get(axis)) for use in root.iter(f"{SVG}use") if use.get("y") for axis in "xy"]


def use_ids(root: ElementTree.Element) -> list[str]:
    """Of what is set: outlines by `use`, markers by a path's style."""
    uses = [use.get("href")[1:] for use in root.iter(f"{SVG}use")]
    return uses + re.findall(r"marker: url\(#([^)]+)\)", ElementTree.tostring(root, "unicode"))
