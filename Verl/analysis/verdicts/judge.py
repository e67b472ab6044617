"""Verdicts by ``compare_with`` (docs/statistics.md): better, worse, equivalent or undecided, a whole family at once.

A family is all arms of a pair that a study compares with the same reference; each has the chance ``alpha`` of any false
verdict. Arms that meet the reference at another step or on other questions cannot share one table with the rest: they
are judged apart, with their share of alpha, so that the family's chance stays what it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from Verl.analysis import stats
from Verl.analysis.verdicts.pairing import Pairing, scores_on

if TYPE_CHECKING:
    from Verl.statistics.compare import ArmComparison

MARGIN = 0.02  # the largest difference of Pass@1 that does not matter, unless a study says otherwise
MARGIN_HELP = f"differences of at most this count as equivalent (default: {MARGIN:g})"
Key = tuple[str, str, str]  # pair, arm, what it is compared with


def read_margin(text: str) -> float:
    """A margin as typed. Raises argparse.ArgumentTypeError unless it is a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1, such as {MARGIN:g}")
    return value


@dataclass(frozen=True)
class Verdict:
    """The verdict on one comparison.

    Args:
        found: of ``compare_with``: difference, simultaneous interval, p adjusted for the family, verdict, seeds.
        family: comparisons of the family. margin: for "equivalent". note: what a reader must know of it, or empty.
    """

    found: ArmComparison
    family: int
    margin: float
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an interval: the noise over seeds could be estimated."""
        return bool(np.isfinite(self.found.high - self.found.low))


def _alike(group: list[Pairing], one: Pairing) -> bool:
    """Whether a comparison can share a table with a group: same point, questions, kind of data, and reference."""
    first = group[0]
    if first.at != one.at or (first.answers is None) != (one.answers is None):
        return False
    if not first.questions.equals(one.questions):
        return False
    return all(other.theirs.get(seed, value) == value for other in group for seed, value in one.theirs.items())


def groups_of(pairings: Sequence[Pairing]) -> list[list[Pairing]]:
    """Comparisons with one reference, those together that can share a table."""
    groups: list[list[Pairing]] = []
    for one in pairings:
        fitting = next((group for group in groups if _alike(group, one)), None)
        if fitting is None:
            groups.append([one])
        else:
            fitting.append(one)
    return groups


def _rows(side: Mapping[int, object], seeds: Sequence[int], questions) -> np.ndarray:
    """One arm's scores (seeds, questions[, samples]), NaN where it lacks a seed. ``side``: frames, or averages."""
    if not len(questions):
        return np.array([[float(side.get(seed, np.nan))] for seed in seeds])
    samples = min(frame.shape[1] for frame in side.values())
    scores = {seed: scores_on(frame, questions)[:, :samples] for seed, frame in side.items()}
    if any(np.isnan(one).any() for one in scores.values()):  # a question that lacks a sample
        scores, samples = {seed: np.nanmean(one, axis=1, keepdims=True) for seed, one in scores.items()}, 1
    empty = np.full((len(questions), samples), np.nan)
    return np.array([scores.get(seed, empty) for seed in seeds])


def table_of(group: Sequence[Pairing], reference: str) -> dict[str, np.ndarray]:
    """What ``compare_with`` takes: arm -> scores, seeds in order, the reference first."""
    questions = group[0].questions
    base: dict[int, object] = {}
    for one in group:
        for seed in one.seeds:
            theirs = one.answers[1][seed] if one.answers else one.theirs[seed]
            if seed not in base or (one.answers and theirs.shape[1] > base[seed].shape[1]):
                base[seed] = theirs
    seeds = sorted(base)
    table = {reference: _rows(base, seeds, questions)}
    for one in group:
        side = one.answers[0] if one.answers else {seed: one.ours[seed] for seed in one.seeds}
        table[one.arm] = _rows(side, seeds, questions)
    return table


def _said(found: ArmComparison, apart: str) -> str:
    """The notes of ``compare_with`` that do not only count seeds, which the sentences name themselves."""
    counted = ("seed number", "compared over", "seed(s) that the reference lacks")
    notes = [part for part in found.note.split("; ") if part and not any(text in part for text in counted)]
    return "; ".join([*notes, *([apart] if apart else [])])


def judge(pairings: Iterable[Pairing], *, margin: float = MARGIN, alpha: float = 0.05) -> dict[Key, Verdict]:
    """Judge every comparison that has a paired seed; families are made by pair and reference.

    Args:
        pairings: each comparison once; those of arms with identical logs must have been left out but for one.
        margin: the largest difference that does not matter. alpha: of each family.
    """
    families: dict[tuple[str, str], list[Pairing]] = {}
    for one in pairings:
        if one.seeds:
            families.setdefault((one.pair, one.base_line), []).append(one)
    judged: dict[Key, Verdict] = {}
    for (pair, reference), members in families.items():
        groups = groups_of(members)
        for group in groups:
            share = len(group) / len(members)
            apart = "" if len(groups) == 1 else f"judged apart, with {len(group)} of the family's {len(members)} comparisons"
            found = stats.compare_with(table_of(group, reference), reference, margin=margin, alpha=alpha * share)
            for arm, one in found.items():
                adjusted = replace(one, p=min(1.0, one.p / share))
                judged[pair, arm, reference] = Verdict(adjusted, len(members), margin, _said(one, apart))
        known = [(pair, one.arm, reference) for one in members if judged[pair, one.arm, reference].known]
        judged |= {key: replace(judged[key], family=len(known)) for key in known}
    return judged
