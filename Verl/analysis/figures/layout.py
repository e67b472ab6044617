"""Where everything stands in a figure, in inches, and how it gets into files that hold neither date nor version."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter
from PIL import Image  # matplotlib requires it

from Verl.analysis.style import STYLE, Look, arm_label

# Inches left of the first panel: for a label and shares of two decimals, for a label and any numbers; a further line of it.
LEFT, LEFT_WIDE, LINE = 0.46, 0.56, 0.12


class NothingToDraw(ValueError):
    """A figure that these runs, or what was asked for, have nothing for: said, and no fault where others are drawn."""


def shown_path(path: Path) -> str:
    """``path`` as a user would type it: from the current folder if it lies below."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def shown_files(files: Sequence[Path]) -> str:
    """The formats of one picture: ``Figure/forest.pdf, .png``."""
    return ", ".join([shown_path(files[0]), *(path.suffix for path in files[1:])])


_WITHOUT_DATE = {".pdf": {"CreationDate": None, "Producer": None, "Creator": None}, ".png": {"Software": None}}
FORMATS = tuple(suffix[1:] for suffix in _WITHOUT_DATE)
_formats = tuple(_WITHOUT_DATE)


def choose_formats(names: Sequence[str]) -> None:
    """What ``save`` writes from now on in this process and those that it forks: pdf, png, or both, which is the default."""
    global _formats
    _formats = tuple(suffix for suffix in _WITHOUT_DATE if suffix[1:] in names)


def save(figure: Figure, path: Path) -> list[Path]:
    """pdf and png, without date or version, each in one move so that no half picture is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix in _formats:
        metadata = _WITHOUT_DATE[suffix]
        target = path.with_name(path.name + suffix)
        draft = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
        figure.savefig(draft, metadata=metadata)
        if suffix == ".png":  # opaque, and in 256 colours, which the eye does not miss: less than half as large
            with Image.open(draft) as image:
                small = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                small.save(draft, optimize=True, dpi=image.info["dpi"])
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
    panel_height: float = 1.25,
    between: float = 0.14,
    more: Sequence[Line2D] = (),
) -> None:
    """Places everything in inches: panels of one size, and a figure as high as its legend and notes need.

    ``drawn``, ``more``: the legend. ``rows``: of panels. ``bars``: room beside each for its error bars, in parts of its width.
    ``left``: room for the axis label and its numbers. ``panel_height``, ``between`` two panels: in inches too.
    Not matplotlib's automatic layout, which lets legend and notes share one place and changes with its version.
    """
    width = figure.get_figwidth()
    handles = [*(handle(look, arm_label(arm)) for arm, look in drawn.items()), *more]
    columns, legend = legend_room([str(one.get_label()) for one in handles], width)
    lines = note_lines(notes, width)
    below, text = 0.42, notes_room(lines)
    above = (0.34 if narrow else 0.2) + (0.2 if title else 0.0)
    height = above + rows * panel_height + (rows - 1) * between + below + legend + text
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
        hspace=between / panel_height,
        wspace=gap / panel,
    )
    figure.align_ylabels(figure.axes)
    if title:
        write_title(figure, title)
    write_notes(figure, lines)
    write_legend(figure, handles, columns, text + legend)


def legend_room(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend of these labels in a figure of this width, and its height in inches."""
    widest = 0.55 + 0.055 * max((len(label) for label in labels), default=0)  # an entry, in inches
    columns = max(1, min(len(labels), int(width / widest)))
    return columns, 0.125 * -(-len(labels) // columns) + 0.03


def note_lines(notes: Sequence[str], width: float) -> list[str]:
    """Notes as the lines that fit into a figure of this width."""
    return [line for note in notes for line in textwrap.wrap(note, int(width * 23))]


def notes_room(lines: Sequence[str]) -> float:
    """The height of the notes at a figure's foot, in inches."""
    return 0.09 * len(lines) + 0.06


def write_title(figure: Figure, title: str) -> None:
    """A title at the top of a figure whose height is set."""
    figure.suptitle(title, fontsize=8.0, y=1 - 0.04 / figure.get_figheight(), va="top")


def write_notes(figure: Figure, lines: Sequence[str]) -> None:
    """Notes at the foot of a figure whose height is set."""
    if not lines:
        return
    width, height = figure.get_size_inches()
    figure.text(
        0.06 / width,
        (notes_room(lines) - 0.02) / height,
        "\n".join(lines),
        fontsize=5.5,
        color="#444444",
        va="top",
        linespacing=1.15,
    )


def handle(look: Look, label: str) -> Line2D:
    """A legend's entry."""
    style = {"color": look.colour, "linestyle": look.dash, "marker": look.marker}
    return Line2D([], [], markeredgewidth=0.0, label=label, **style)


def write_legend(figure: Figure, handles: Sequence[Line2D], columns: int, top: float) -> None:
    """A legend whose upper edge lies ``top`` inches above the figure's foot."""
    if not handles:
        return
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, top / figure.get_figheight()),
        ncols=columns,
        frameon=False,
        handlelength=2.8,
        columnspacing=1.0,
        borderaxespad=0.0,
        borderpad=0.0,
        labelspacing=0.3,
    )
