"""Where everything stands in a figure, in inches, and how it gets into files that hold neither date nor version."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter
from PIL import Image  # matplotlib requires it

from Verl.analysis.style import STYLE, Look, arm_label

# Inches left of the first panel: for a label and shares of two decimals, for a label and any numbers; a further line of it.
LEFT, LEFT_WIDE, LINE = 0.46, 0.56, 0.12


def save(figure: Figure, path: Path) -> list[Path]:
    """pdf and png, without date or version, each in one move so that no half picture is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    without_date = {".pdf": {"CreationDate": None, "Producer": None, "Creator": None}, ".png": {"Software": None}}
    for suffix, metadata in without_date.items():
        target = path.with_name(path.name + suffix)
        draft = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
        figure.savefig(draft, metadata=metadata)
        if suffix == ".png":  # the same pixels without their alpha, which is opaque: an eighth smaller
            with Image.open(draft) as image:
                image.convert("RGB").save(draft, optimize=True, dpi=image.info["dpi"])
        os.replace(draft, target)
        files.append(target)
    return files


def settings() -> dict:
    """Our style over matplotlib's defaults, whatever the user's matplotlibrc says."""
    skip = ("backend", "backend_fallback", "interactive", "toolbar", "timezone", "datapath")
    return {key: value for key, value in matplotlib.rcParamsDefault.items() if key not in skip} | STYLE


def any_number() -> ScalarFormatter:
    """Labels of an axis in whatever units: short ones, powers of ten above the axis."""
    formatter = ScalarFormatter(useOffset=False, useMathText=False)
    formatter.set_powerlimits((-2, 4))
    return formatter


def lay_out(
    figure: Figure,
    drawn: Mapping[str, Look],
    title: str,
    notes: list[str],
    rows: int,
    bars: float,
    narrow: bool,
    left: float = LEFT,
) -> None:
    """Places everything in inches: panels of one size, and a figure as high as its legend and notes need.

    ``drawn``: the legend. ``rows``: of panels. ``bars``: room beside each panel for its error bars, in parts of its width.
    ``left``: room for the axis label and its numbers.
    Not matplotlib's automatic layout, which lets legend and notes share one place and changes with its version.
    """
    width = figure.get_figwidth()
    widest = 0.55 + 0.055 * max((len(arm_label(arm)) for arm in drawn), default=0)  # a legend's entry, in inches
    columns = max(1, min(len(drawn), int(width / widest)))
    lines = [line for note in notes for line in textwrap.wrap(note, int(width * 24))]
    legend = 0.125 * -(-len(drawn) // columns) + 0.03
    below, text = 0.42, 0.09 * len(lines) + 0.06
    above = (0.34 if narrow else 0.2) + (0.2 if title else 0.0)
    height = above + rows * 1.25 + (rows - 1) * 0.14 + below + legend + text
    figure.set_figheight(height)
    panels = len(figure.axes) // rows
    gap = (0.3 if narrow else 0.36) + bars * (width - 0.5) / panels * 0.75
    gap += LEFT_WIDE - LEFT if left > LEFT else 0.0
    panel = (width - left - 0.05 - gap * (panels - 1)) / (panels + bars)
    figure.subplots_adjust(
        left=left / width,
        right=1 - (0.05 + bars * panel) / width,
        top=1 - above / height,
        bottom=(below + legend + text) / height,
        hspace=0.14 / 1.25,
        wspace=gap / panel,
    )
    figure.align_ylabels(figure.axes)
    if title:
        figure.suptitle(title, fontsize=8.0, y=1 - 0.04 / height, va="top")
    if lines:
        figure.text(
            0.06 / width,
            (text - 0.02) / height,
            "\n".join(lines),
            fontsize=5.5,
            color="#444444",
            va="top",
            linespacing=1.15,
        )
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markeredgewidth=0.0,
            label=arm_label(arm),
        )
        for arm, look in drawn.items()
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, (text + legend) / height),
            ncols=columns,
            frameon=False,
            handlelength=2.8,
            columnspacing=1.0,
            borderaxespad=0.0,
            borderpad=0.0,
            labelspacing=0.3,
        )
