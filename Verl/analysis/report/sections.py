"""One section of the report per factor: its figures, tables, verdicts, and what its arms' configs differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from Verl.analysis import stats
from Verl.analysis.report.figures import InlineFigure, factor_figures
from Verl.analysis.report.run_tables import final_score, final_scores
from Verl.analysis.runs.configs import ConfigTable, config_table
from Verl.analysis.runs.foundations import compared_on_other_ground
from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs, last_scores
from Verl.analysis.verdicts.compare import compare, gains
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.factors import comparisons_of, family_of, pairs_of
from Verl.analysis.verdicts.judge import Key, Verdict
from Verl.analysis.verdicts.text import conclusion, headline
from Verl.design.declared import Factor, declared


class ArmRow(NamedTuple):
    """One arm's test scores, means over seeds; NaN where they were not logged."""

    arm: str
    seeds: int
    start: float
    last: stats.Interval
    last_step: int
    best: float
    best_step: int
    flexible: float
    format: float


class ComparisonRow(NamedTuple):
    """A comparison with the chance that a run of the arm beats one of the other, and what it could have found."""

    comparison: Comparison
    better: float | None
    detectable: float | None


@dataclass
class PairPart:
    """One factor on one pair. ``verdicts``: a plain sentence per family, none if nothing that it compares was run;
    ``short``: the first of them, for the top."""

    pair: str
    short: str
    verdicts: list[str]
    missing: list[str]
    arms: list[ArmRow]
    comparisons: list[ComparisonRow]
    config: ConfigTable
    ground: tuple[str, ...]  # what compared runs stood on and do not share


@dataclass
class Section:
    """One factor of the report."""

    factor: Factor
    figures: list[InlineFigure] = field(default_factory=list)
    parts: list[PairPart] = field(default_factory=list)


def arm_row(table: pd.DataFrame, pair: str, arm: str) -> ArmRow | None:
    """None if the arm has no test evaluation on this pair."""
    rows = table[(table["pair"] == pair) & (table["arm"] == arm)]
    at_the_end = last_scores(rows)
    if at_the_end is None:
        return None
    step, last = at_the_end
    means = rows.groupby("step")[TEST].mean().dropna()
    interval = stats.seed_interval(last) if last.size > 1 else stats.Interval(float(last.mean()), np.nan, np.nan)
    others = [final_score(table, pair, arm, f"eval/test/{rule}") for rule in ("flexible", "format")]
    start, best = float(means.get(0, np.nan)), float(means.max())
    return ArmRow(arm, last.size, start, interval, step, best, int(means.idxmax()), *others)


def comparison_row(table: pd.DataFrame, one: Comparison) -> ComparisonRow:
    """With the probability of improvement over the last scores of all seeds, where both are arms."""
    ours, theirs = (final_scores(table, one.pair, arm) for arm in (one.arm, one.base_line))
    better = stats.probability_of_improvement(ours[:, None], theirs[:, None]) if ours.size and theirs.size else None
    return ComparisonRow(one, better, one.detectable())


def _families(runs: Runs, factor: Factor, arms: dict[str, list[str]], result_dir: Path, judged) -> list[list[Comparison]]:
    """The factor's families of comparisons: of arms with their start, where it asks for that, and between arms."""
    family = family_of(factor, arms)
    found = [compare(runs, family, result_dir, judged=judged)] if family else []
    if factor.from_start:
        of_pairs = []
        for pair, of_pair in arms.items():
            about = [arm for arm, _ in comparisons_of(factor, pair, of_pair)] or of_pair
            of_pairs += [(pair, about)]
        names = list(dict.fromkeys(arm for _, about in of_pairs for arm in about))
        found.insert(0, gains(runs, names, [pair for pair, _ in of_pairs], result_dir, judged=judged))
    return found


def section(runs: Runs, factor: Factor, result_dir: Path, judged: Mapping[Key, Verdict] | None = None) -> Section | None:
    """Everything about one factor; None where no pair has anything to compare. ``judged``: from ``study_verdicts``."""
    table = runs.table
    arms = pairs_of(factor, table)
    if not arms:
        return None
    families = _families(runs, factor, arms, result_dir, judged)
    done = Section(factor)
    for pair, of_pair in arms.items():
        here = [[one for one in family if one.pair == pair] for family in families]
        compared = comparisons_of(factor, pair, of_pair)
        rows = [row for arm in of_pair if (row := arm_row(table, pair, arm)) is not None]
        present = set(table.loc[table["pair"] == pair, "arm"])
        run = [[one for one in family if one.arm in present] for family in here]
        done.parts.append(
            PairPart(
                pair,
                headline(here[0]) if here else "",
                [text for family, ours in zip(here, run) if ours and (text := conclusion(family))],
                [arm for arm in of_pair if arm not in present],
                rows,
                [comparison_row(table, one) for family in run for one in family],
                config_table(result_dir, table, pair, of_pair, compared),
                tuple(compared_on_other_ground(result_dir, table, pair, compared)),
            )
        )
    if any(part.verdicts for part in done.parts):
        said = " ".join(part.verdicts[0] for part in done.parts if part.verdicts)
        done.figures = factor_figures(runs, factor, arms, said)
    return done


def sections(runs: Runs, result_dir: Path, judged: Mapping[Key, Verdict] | None = None) -> list[Section]:
    """The sections of all factors that the runs can say something about."""
    found = [section(runs, factor, result_dir, judged) for factor in declared().factors.values()]
    return [one for one in found if one is not None]


class Count(NamedTuple):
    """How the comparisons of one pair with one reference ended; ``unknown``: one seed or constant scores, no interval."""

    pair: str
    reference: str
    comparisons: int
    better: int
    worse: int
    equivalent: int
    undecided: int
    unknown: int
    disputed: int


def verdict_counts(found: Sequence[Comparison]) -> list[Count]:
    """A row per pair and reference over different comparisons, arms with identical logs once.

    Args:
        found: comparisons of a study, each once; those without a result are left out.
    """
    families: dict[tuple[str, str], list[Comparison]] = {}
    for one in found:
        if one.judged is not None and one.counted_as is None and one.verdict is not None:
            families.setdefault((one.pair, one.base_line), []).append(one)
    rows = []
    for (pair, reference), members in families.items():
        ended = [one.verdict if one.known else "unknown" for one in members]
        counts = [ended.count(word) for word in ("better", "worse", "equivalent", "undecided", "unknown")]
        rows.append(Count(pair, reference, len(members), *counts, sum(one.disputed() for one in members)))
    return rows


class Across(NamedTuple):
    """One arm over several pairs: interquartile mean of its last test scores, and the chance to beat the base line."""

    arm: str
    pairs: int
    iqm: stats.Interval
    better: stats.Interval | None


def across_pairs(table: pd.DataFrame, base_line: str, arms: Sequence[str]) -> list[Across]:
    """A row per arm that has runs on all pairs of the base line, where there are at least two; seeds cut to the fewest.

    Intervals: stratified bootstrap over seeds, the pairs as tasks (Agarwal et al. 2021).
    """
    pairs = [pair for pair in sorted(table["pair"].unique()) if final_scores(table, pair, base_line).size]
    if len(pairs) < 2:
        return []
    scores = {}
    for arm in arms:
        of_arm = [final_scores(table, pair, arm) for pair in pairs]
        fewest = min(values.size for values in of_arm)
        if fewest:
            scores[arm] = np.array([values[:fewest] for values in of_arm]).T
    rows = []
    for arm, matrix in scores.items():
        better = None
        if arm != base_line:
            both = (matrix, scores[base_line])
            better = stats.stratified_bootstrap_interval(both, stats.probability_of_improvement, resamples=500)
        rows.append(Across(arm, len(pairs), stats.stratified_bootstrap_interval(matrix, resamples=500), better))
    return rows
