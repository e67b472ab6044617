"""How every figure looks: one style, and one colour, dash and marker per arm wherever the arm appears."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

# Okabe and Ito's palette (2008), safe for the common colour blindnesses; its yellow is too pale for lines on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#777777"

SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2))

COLUMN_WIDTH, PAGE_WIDTH = 3.3, 6.9  # inches: one column and the full width of a two-column paper


class Look(NamedTuple):
    """How one arm is drawn: dash and marker tell it apart where the print is grey."""

    colour: str
    dash: object
    marker: str


_LOOKS = {
    "grpo_0032_1": Look(BLACK, SOLID, "o"),  # the base line
    "grpo_0032_8": Look(BLUE, SOLID, "s"),
    # rollouts at batch 32
    "grpo_0032_16": Look(ORANGE, DASHED, "^"),
    "grpo_0032_32": Look(GREEN, DASH_DOT, "D"),
    "grpo_0032_64": Look(VERMILLION, DOTTED, "v"),
    # batch at 8 rollouts
    "grpo_0064_8": Look(PURPLE, DASHED, "P"),
    "grpo_0128_8": Look(GREEN, DOTTED, "X"),
    # batch x rollouts = 256, besides 0032_8
    "grpo_0001_256": Look(VERMILLION, DASH_DOT, "v"),
    "grpo_0002_128": Look(ORANGE, DOTTED, "<"),
    "grpo_0004_64": Look(GREEN, DASHED, "D"),
    "grpo_0008_32": Look(PURPLE, DASH_DOT, "P"),
    "grpo_0016_16": Look(SKY, DASHED, "^"),
    "grpo_0064_4": Look(ORANGE, SOLID, ">"),
    "grpo_0128_2": Look(GREEN, SOLID, "X"),
    "grpo_0256_1": Look(GREY, DASHED, "p"),
    "onerpo_0032_1_7": Look(VERMILLION, DASHED, "^"),
    "arpo_0032_8": Look(SKY, DASH_DOT, "X"),
    # replay
    "asyttgrpo_0064_4_8": Look(ORANGE, DASHED, "<"),
    "asyttgrpo_0128_2_8": Look(GREEN, DASHED, "P"),
    "asyttgrpo_0256_1_8": Look(GREY, DOTTED, "^"),
    "asyttgrpo_0512_1_8": Look(PURPLE, DASHED, "v"),
    "asyttgrpo_1024_1_8": Look(SKY, DASH_DOT, "P"),
    "asyttgrpo_2048_1_8": Look(VERMILLION, DASHED, "X"),
    "asyttgrpo_0064_1_8": Look(ORANGE, DOTTED, "D"),
    "asyttgrpo_0128_1_8": Look(GREEN, DASH_DOT, "p"),
    "banditpo_0032_8_8": Look(PURPLE, SOLID, "p"),  # of the first study
    "banditpo_0032_8_32": Look(VERMILLION, DASHED, "D"),
    # negative controls
    "grpo_0032_8_control_random": Look(VERMILLION, DOTTED, "X"),
    "grpo_0032_8_control_shuffled": Look(PURPLE, DASHED, "D"),
    "grpo_0032_8_control_format": Look(GREEN, DASH_DOT, "^"),
    "grpo_0032_8_control_lr0": Look(GREY, DASH_DOT, "P"),
}
_ALGORITHMS = {
    "grpo": "GRPO",
    "onerpo": "One-RPO",
    "arpo": "ARPO",
    "asyttgrpo": "replay",
    "banditpo": "Bandit-PO",
}


def arm_look(arm: str) -> Look:
    """The look of an arm: from the table, or for an unknown arm from a hash of its name, the same on every machine."""
    if arm in _LOOKS:
        return _LOOKS[arm]
    number = int.from_bytes(hashlib.sha256(arm.encode()).digest()[:8], "big")
    colours, dashes, markers = (SKY, ORANGE, GREEN, VERMILLION, PURPLE, GREY), (DASHED, DOTTED, DASH_DOT), "^DvPX<>p"
    number, i = divmod(number, len(colours))
    number, j = divmod(number, len(dashes))
    return Look(colours[i], dashes[j], markers[number % len(markers)])


def arm_label(arm: str) -> str:
    """An arm in a reader's words: ``onerpo_0032_1_7`` is "One-RPO 32x1 +7", ``grpo_0032_1`` the base line."""
    if arm == "grpo_0032_1":
        return "base line 32\N{MULTIPLICATION SIGN}1"
    match = re.fullmatch(r"([a-z]+)_(\d+)_(\d+)(?:_(\d+))?(?:_(.*))?", arm)
    if not match or match[1] not in _ALGORITHMS:
        return arm
    algorithm, batch, rollouts, third, rest = match.groups()
    size = f"{int(batch)}\N{MULTIPLICATION SIGN}{int(rollouts)}"
    if rest and rest.startswith("control_"):
        return f"control {rest.removeprefix('control_').replace('_', ' ')} {size}"
    label = f"{_ALGORITHMS[algorithm]} {size}"
    if third:
        label += f" +{int(third)}" if algorithm == "onerpo" else f" w{int(third)}"
    return label + (f" {rest.replace('_', ' ')}" if rest else "")


STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,  # letters stay letters: journals refuse type 3 fonts
    "savefig.dpi": 300,
    "figure.dpi": 100,
    "path.simplify": False,
}
