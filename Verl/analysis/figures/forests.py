"""The forest plots of a study: every factor's effect, its curves' asymptotes and midpoints, learning and generalisation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from Verl.analysis.figures.any_metric import label_of
from Verl.analysis.figures.curves import our_style
from Verl.analysis.figures.forest import Column, ForestInterval, Group, Row, draw_forest
from Verl.analysis.figures.layout import NothingToDraw
from Verl.analysis.runs.drawn import why_unlike
from Verl.analysis.runs.run_file import TEST, listed
from Verl.analysis.runs.table import Runs
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.compare import compare, study_verdicts
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.factors import family_of, pairs_of
from Verl.analysis.verdicts.generalisation import TrainTest, metrics_of
from Verl.analysis.verdicts.judge import Key, Verdict
from Verl.analysis.verdicts.pairing import START
from Verl.analysis.verdicts.saturation import FitComparison, StudyFits, is_share
from Verl.design.declared import AXES, Factor, declared

HIGHER = {"better": "higher", "worse": "lower"}  # where neither direction is the better one
_ENDS = {"better": "ends higher", "worse": "ends lower", "equivalent": "ends alike"}
_SPEEDS = {"better": "learns slower", "worse": "learns faster"}
_LEARNS = {"better": "better", "worse": "worse", "equivalent": "alike"}
_SIMULTANEOUS = "simultaneous 95 % intervals over all arms with one reference"
_ANSWERED = re.compile(r"eval/\w+/(pass@1|flexible|format)")  # what the stored answers have, question by question


class Forest(NamedTuple):
    """The pages of a forest plot, its notes, and the comparisons in words."""

    figures: list[Figure]
    notes: list[str]
    lines: list[str]


def families(runs: Runs, pairs: Sequence[str] | None) -> Iterator[tuple[Factor, list[Key]]]:
    """Every factor that has runs, with its comparisons; with the start where it compares nothing else."""
    for factor in declared().factors.values():
        arms = pairs_of(factor, runs.table, pairs)
        found: list[Key] = family_of(factor, arms)
        if not found and factor.from_start:
            found = [(pair, arm, START) for pair, of_pair in arms.items() for arm in of_pair]
        if found:
            yield factor, found


def _groups(
    runs: Runs, pairs: Sequence[str], effects_of: Callable[[str, str, str], tuple[ForestInterval | None, ...]]
) -> list[Group]:
    """A group per factor and reference. ``effects_of``: (pair, arm, reference) -> an effect per column."""
    groups = []
    for factor, keys in families(runs, pairs):
        for base in dict.fromkeys(base for _, _, base in keys):
            arms = dict.fromkeys(arm for _, arm, other in keys if other == base)
            rows = []
            for arm in arms:
                effects = tuple(one for pair in pairs for one in effects_of(pair, arm, base))
                if any(one is not None for one in effects):
                    rows.append(Row(arm_label(arm), effects))
            if rows:
                groups.append(Group(f"{factor.title}, against {arm_label(base)}", tuple(rows)))
    return groups


def effect_of(one: Comparison | None) -> ForestInterval | None:
    """A comparison as it is drawn; None where nothing can be said."""
    if one is None or one.verdict is None:
        return None
    found = one.judged.found
    return ForestInterval(found.difference, found.low, found.high, found.verdict)


def _pairs(runs: Runs, pairs: Sequence[str] | None) -> list[str]:
    present = sorted(runs.table["pair"].unique())
    return present if pairs is None else [pair for pair in pairs if pair in present]


def _missing(runs: Runs, pairs: Sequence[str]) -> list[str]:
    """A note on the arms that are compared and were never run."""
    notes = []
    for pair in pairs:
        present = set(runs.table.loc[runs.table["pair"] == pair, "arm"])
        absent = dict.fromkeys(arm for _, keys in families(runs, [pair]) for _, arm, _ in keys if arm not in present)
        if absent:
            notes.append(f"Not run on {pair}, so not drawn: {listed(absent)}.")
    return notes


def forest_effects(
    runs: Runs,
    result_dir: Path | None,
    margin: float,
    pairs: Sequence[str] | None = None,
    metric: str = TEST,
    title: str = "",
    judged: Mapping[Key, Verdict] | None = None,
    axis: str = "steps",
) -> Forest:
    """Every factor's differences at the last common step or budget, on one page or as many as they need, a column per pair.

    ``judged``: from ``study_verdicts`` of this metric and axis. Raises NothingToDraw if there is nothing to compare.
    """
    of = _pairs(runs, pairs)
    verdict_metric = metric == TEST or bool(re.fullmatch(r"eval/\w+/pass@1", metric))
    folder = result_dir if _ANSWERED.fullmatch(metric) else None
    if judged is None:
        judged = study_verdicts(runs, folder, axis, metric, margin=margin if verdict_metric else None)
    keys = list(dict.fromkeys(key for _, family in families(runs, of) for key in family))
    compared = compare(runs, keys, folder, axis, metric, margin=margin, judged=judged)
    found = {(c.pair, c.arm, c.base_line): c for c in compared}
    groups = _groups(runs, of, lambda *key: (effect_of(found.get(key)),))
    if not groups:
        raise NothingToDraw(f"no two arms can be compared on {metric}; nothing drawn")
    name = "test Pass@1" if metric == TEST else label_of(metric)
    words = {} if verdict_metric else HIGHER
    columns = [
        Column(pair.replace("_", " / ") if len(of) > 1 else "", f"difference of {name}", margin if verdict_metric else None,
               share=is_share(metric), words=words) for pair in of
    ]  # fmt: skip
    band = f"grey: a margin of ±{margin:g}; " if verdict_metric else ""
    where = "Last evaluations" if axis == "steps" else f"At equal {AXES[axis]}"
    notes = [f"{where}, paired by seed; {band}{_SIMULTANEOUS}.", *_missing(runs, of)]
    known = [found[key] for key in keys if found[key].verdict is not None]
    unlike = [why_unlike(runs, result_dir, (c.pair, c.arm, c.base_line), metric) for c in known] if result_dir else []
    notes += [f"Not of the policies alone: {reason}." for reason in unlike if reason]
    with our_style():
        figures = draw_forest(groups, columns, title, notes)
    lines = [one.sentence if verdict_metric else effect_sentence(one, metric) for one in known]
    return Forest(figures, notes, lines)


def effect_sentence(one: Comparison, metric: str) -> str:
    """A difference of a metric of which neither direction is the better one."""
    found, form = one.judged.found, "+.3f" if is_share(metric) else "+.3g"
    head = f"{one.pair}: {arm_label(one.arm)} against {arm_label(one.base_line)}: {metric}"
    return f"{head} {_numbers(found, form)}: {HIGHER.get(found.verdict, found.verdict)}."


def _numbers(found, form: str) -> str:
    """A difference with its interval: +0.042 (+0.004 to +0.080)."""
    return f"{found.difference:{form}} ({found.low:{form}} to {found.high:{form}})".replace("-", "\N{MINUS SIGN}")


def _log_ratio(one: FitComparison) -> ForestInterval:
    found = one.midpoint
    return ForestInterval(found.difference, found.low, found.high, found.verdict)


def fit_effects(runs: Runs, fits: StudyFits, pair: str, margin: float, title: str = "") -> Forest:
    """What tells "ends higher" from "learns faster": differences of asymptotes, ratios of midpoints, on one pair."""
    metric, share = fits.metric[pair], is_share(fits.metric[pair])

    def effects(pair: str, arm: str, base: str) -> tuple[ForestInterval | None, ...]:
        one = fits.comparisons.get((pair, arm, base))
        if one is None or one.asymptote is None:
            return None, None
        end = one.asymptote
        return ForestInterval(end.difference, end.low, end.high, end.verdict), _log_ratio(one)

    groups = _groups(runs, [pair], effects)
    of_factors = [key for _, keys in families(runs, [pair]) for key in keys if key[2] != START]
    known = [fits.comparisons[key] for key in dict.fromkeys(of_factors) if key in fits.comparisons]
    lines = [fit_sentence(one, fits) for one in known]
    if not groups:
        return Forest([], [], lines)
    band, axis = margin if share else None, fits.axis.replace("_", " ")
    columns = [
        Column("ends higher or lower", f"asymptote of\n{label_of(metric)}, difference", band, share=share, words=_ENDS),
        Column("learns faster or slower", f"midpoint in {axis},\nratio", ratio=True, words=_SPEEDS),
    ]
    notes = [
        f"Saturating fits of {metric} against {axis}; left of 1: half of its own gain in fewer; {_SIMULTANEOUS}.",
        *_unfitted(fits, pair, {arm for _, arm, _ in of_factors}),
        *_apart(fits, known),
    ]
    with our_style():
        return Forest(draw_forest(groups, columns, title, notes), notes, lines)


def _unfitted(fits: StudyFits, pair: str, arms: set[str]) -> list[str]:
    """A note on the arms without a fit; the report and the console have each one's reason."""
    without = [arm for (of_pair, arm), one in fits.fits.items() if of_pair == pair and one.fit is None and arm in arms]
    return [f"Without a fit, so not here: {listed(without)}."] if without else []


def _apart(fits: StudyFits, known: Sequence[FitComparison]) -> list[str]:
    """A note on each comparison that cannot be made though both arms have a fit."""
    both = [one for one in known if all(fits.fits[one.pair, arm].fit for arm in (one.arm, one.base_line))]
    return [f"{arm_label(one.arm)} is not here: {one.why_not}." for one in both if one.asymptote is None]


def fit_sentence(one: FitComparison, fits: StudyFits) -> str:
    """One comparison of two fits in words and numbers."""
    head = f"{one.pair}: {arm_label(one.arm)} against {arm_label(one.base_line)}"
    if one.asymptote is None:
        return f"{head} {one.words}."
    end, middle = one.asymptote, one.midpoint
    form = "+.3f" if is_share(fits.metric[one.pair]) else "+.4g"
    ratio, low, high = (math.exp(min(value, 50.0)) for value in (middle.difference, middle.low, middle.high))
    return f"{head}: asymptote {_numbers(end, form)}, midpoint x {ratio:.2f} ({low:.2f} to {high:.2f}): {one.words}."


def train_test_effects(
    runs: Runs, found: Mapping[Key, TrainTest], pair: str, margin: float, rule: str = "pass@1", title: str = ""
) -> Forest:
    """What a factor does to learning and to generalisation: differences on train, and of test minus train, on one pair."""
    groups = _groups(runs, [pair], lambda *key: _both(found.get(key)))
    keys = [key for _, family in families(runs, [pair]) for key in family if key in found]
    lines = [train_test_sentence(key, found[key]) for key in dict.fromkeys(keys)]
    if not groups:
        return Forest([], [], lines)
    names = [label_of(metric) for metric in metrics_of(rule)]
    band = margin if rule == "pass@1" else None
    columns = [
        Column("learning", f"{names[0]},\ndifference", band, words=_LEARNS),
        Column("generalisation", f"{names[2]},\ndifference", band, words=_LEARNS),
    ]
    grey = f"grey: a margin of ±{margin:g}; " if band else ""
    notes = [f"Last evaluations, paired by seed; {grey}{_SIMULTANEOUS}.", *_missing(runs, [pair])]
    with our_style():
        return Forest(draw_forest(groups, columns, title, notes), notes, lines)


def _both(one: TrainTest | None) -> tuple[ForestInterval | None, ForestInterval | None]:
    return (None, None) if one is None else (effect_of(one.train), effect_of(one.gap))


def train_test_sentence(key: Key, one: TrainTest) -> str:
    """One comparison of learning and generalisation in words and numbers."""
    head = f"{key[0]}: {arm_label(key[1])} against {arm_label(key[2])}"
    parts = []
    for name, c in (("train", one.train), ("test minus train", one.gap)):
        if c.verdict is not None:
            parts.append(f"{name} {_numbers(c.judged.found, '+.3f')}")
    return f"{head}: {', '.join(parts)}: {one.words}." if parts else f"{head} {one.words}."

