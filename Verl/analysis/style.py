"""How every figure looks: one style, and one colour, dash and marker per arm wherever the arm appears."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from Verl.design.declared import Study, declared
from Verl.trainer.naming import parse_arm
from Verl.trainer.ppo.estimators import estimators

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


# Arms whose look was chosen by hand; that of any other is derived below.
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
    # factors of estimators: nine baselines in one figure
    "reinforce_0032_8": Look(BLACK, DASHED, "X"),
    "grpo_0032_8_nostd": Look(BLUE, DASHED, "p"),
    "rloo_0032_8": Look(SKY, SOLID, "^"),
    "batchmean_0032_8": Look(ORANGE, SOLID, "D"),
    "onerpo_0032_8_7_nostd": Look(VERMILLION, DASH_DOT, "8"),
    "asyttgrpo_0032_8_32_window": Look(GREEN, SOLID, "<"),
    "asyttgrpo_0032_8_32_ema": Look(GREEN, DOTTED, ">"),
    "asyttgrpo_0032_8_32_beta": Look(PURPLE, SOLID, "h"),
    "jamesstein_0032_8": Look(VERMILLION, SOLID, "*"),
    "litepo_0032_8": Look(ORANGE, DASH_DOT, "P"),
    "asyttgrpo_0032_8_32_window_after": Look(ORANGE, DASHED, "v"),
    "asyttgrpo_0032_8_32_beta_after": Look(VERMILLION, DOTTED, "d"),
    "grpo_0032_8_right": Look(GREEN, DASHED, "^"),
    "grpo_0032_8_wrong": Look(VERMILLION, DASHED, "p"),
    "reinforce_0032_8_right": Look(PURPLE, DOTTED, "P"),
    "grpo_0001_1": Look(BLUE, DASH_DOT, "d"),
    "grpo_0001_1_one_query": Look(VERMILLION, DASHED, "*"),
    # negative controls
    "grpo_0032_8_control_random": Look(VERMILLION, DOTTED, "X"),
    "grpo_0032_8_control_shuffled": Look(PURPLE, DASHED, "D"),
    "grpo_0032_8_control_format": Look(GREEN, DASH_DOT, "^"),
    "grpo_0032_8_control_lr0": Look(GREY, DASH_DOT, "P"),
}

# For arms without a look of their own.
_COLOURS, _DASHES, _MARKERS = (SKY, ORANGE, GREEN, VERMILLION, PURPLE, GREY), (DASHED, DOTTED, DASH_DOT), "^DvPX<>phd*8"
_DERIVED = [Look(colour, dash, marker) for marker in _MARKERS for dash in _DASHES for colour in _COLOURS]
_FIRST_CHOICE = 144  # looks: those of the first eight markers


def arm_look(arm: str) -> Look:
    """The look of an arm, the same on every machine and in every figure that draws no undeclared arm like it."""
    return arm_looks([arm])[arm]


def arm_looks(arms: Iterable[str]) -> dict[str, Look]:
    """The looks of the arms of one figure: each declared arm has its own everywhere; any other one's, which begins with a
    hash of its name, gives way to those beside it."""
    known = _declared_looks()
    looks = {arm: known[arm] for arm in arms if arm in known}
    for arm in arms:
        looks.setdefault(arm, _free(arm, looks.values(), ()))
    return looks


@cache
def _declared_looks() -> dict[str, Look]:
    """Those above, then one for every other arm of study.yaml, in its order: unlike the arms beside it in any figure."""
    study, looks = declared(), dict(_LOOKS)
    for arm in study.arms:
        if arm not in looks:
            beside = [looks[other] for other in _beside(study, arm, looks)]
            looks[arm] = _free(arm, beside, looks.values())
    return looks


def _beside(study: Study, arm: str, others: Iterable[str]) -> list[str]:
    """Those of the others that may stand in one figure with an arm."""
    names = set()
    for factor in study.factors.values():
        scaled = [one for pair in study.pairs.values() for one in pair.members(factor).values()]
        of_factor = {*factor.members, *factor.also, factor.reference, *scaled}
        names |= of_factor if _matches(arm, of_factor) else set()
    return [other for other in others if _matches(other, names)]


def _matches(arm: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(arm, name) for name in names)


def _free(arm: str, beside: Collection[Look], used: Collection[Look]) -> Look:
    """The first look from a hash of the name on that nobody has, with a marker and a colour that no neighbour has."""
    start = int.from_bytes(hashlib.sha256(arm.encode()).digest()[:8], "big") % _FIRST_CHOICE
    markers, colours = ({one.marker for one in beside}, {one.colour for one in beside})
    candidates = [*_DERIVED[start:], *_DERIVED[:start]]
    return min(candidates, key=lambda look: (look in used, look.marker in markers, look.colour in colours))


def arm_label(arm: str) -> str:
    """An arm in a reader's words: ``onerpo_0032_1_7`` is "One-RPO 32x1 +7", ``grpo_0032_1`` the base line."""
    parsed = parse_arm(arm)
    estimator = estimators().get(parsed.estimator) if parsed else None
    if estimator is None:
        return arm
    size = f"{parsed.queries}\N{MULTIPLICATION SIGN}{parsed.rollouts}"
    if arm == declared().base_line:
        return f"base line {size}"
    if parsed.rest.startswith("control_"):
        return f"control {parsed.rest.removeprefix('control_').replace('_', ' ')} {size}"
    label = f"{estimator.label} {size}"
    if parsed.size is not None:
        label += f" {estimator.size.mark if estimator.size else ''}{parsed.size}"
    return f"{label} {parsed.rest.replace('_', ' ')}" if parsed.rest else label


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
    "savefig.dpi": 200,  # of the png; the pdf is for print
    "figure.dpi": 100,
    "path.simplify": False,
}
