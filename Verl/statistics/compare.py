"""Every arm of a study against its reference: difference, simultaneous interval, adjusted p, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from Verl.statistics.data import Differences, differences, read_scores
from Verl.statistics.joint import Family
from Verl.statistics.model import posterior

VERDICTS = ("better", "worse", "equivalent", "undecided")


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference.

    Args:
        difference: mean of arm minus reference over common seeds and questions; NaN without a common seed.
        low, high: simultaneous interval of confidence 1 - alpha over all arms of the study; infinite where the noise
            over seeds is unknown.
        p: two-sided, adjusted for the family; at most alpha exactly where the interval leaves out 0.
        verdict: "better", "worse", "equivalent" or "undecided", see ``verdict_of``.
        seeds: seeds that arm and reference share.
        note: what was left out or could not be known; empty if nothing.
        own_p: p of this comparison alone, not adjusted.
        seed_std: posterior median of the arm's std over seeds, without sampling noise; NaN if unknown.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: str
    seeds: int
    note: str = ""
    own_p: float = 1.0
    seed_std: float = math.nan


def verdict_of(low: float, high: float, margin: float | None = None) -> str:
    """Turn an interval into a verdict.

    "equivalent" if it lies within +-margin (the two one-sided tests of Schuirmann 1987 at half the interval's alpha),
    even if it leaves out 0: the difference is then real and too small to matter. Else "better" or "worse" if it leaves
    out 0, else "undecided".
    """
    if margin is not None and -margin <= low and high <= margin:
        return "equivalent"
    if low > 0.0:
        return "better"
    return "worse" if high < 0.0 else "undecided"


def _unknown(difference: float, seeds: int, notes: tuple[str, ...]) -> Comparison:
    return Comparison(difference, -math.inf, math.inf, 1.0, "undecided", seeds, "; ".join(notes))


def selected(data: Differences, arms: np.ndarray) -> Differences:
    """``data`` of some arms, over the seeds that they use."""
    seeds = data.used_AS[arms].any(axis=0)
    return replace(
        data,
        names=tuple(data.names[i] for i in arms),
        used_AS=data.used_AS[arms][:, seeds],
        difference_AS=data.difference_AS[arms][:, seeds],
        sampling_A=data.sampling_A[arms],
        question_A=data.question_A[arms],
        notes=tuple(data.notes[i] for i in arms),
    )


def _constant(data: Differences, i: int, note: str, margin: float | None) -> Comparison:
    """An arm whose difference is the same for every seed and question: there is no noise to judge it by."""
    difference, seeds = float(data.mean_A[i]), int(data.seeds_A[i])
    if difference == 0.0:
        found = Comparison(0.0, 0.0, 0.0, 1.0, verdict_of(0.0, 0.0, margin), seeds, own_p=1.0, seed_std=0.0)
        return replace(found, note="; ".join([*data.notes[i], "the same scores as the reference"]))
    return _unknown(difference, seeds, (*data.notes[i], note))


def compare_with(
    scores: Mapping[str, object], reference: str, *, margin: float | None = None, alpha: float = 0.05
) -> dict[str, Comparison]:
    """Compare every arm with the reference, all as one family.

    The model, its assumptions and what breaks it: docs/statistics.md. In short: paired by seed and question; sampling
    noise known from the questions; the seeds' variance of all arms estimated together under a heavy-tailed prior; the
    reference's noise shared by all comparisons.

    Args:
        scores: arm -> (seeds, questions) of mean scores or (seeds, questions, samples) of 0/1 or real scores, seeds and
            questions in the same order for all. An arm may have fewer seeds (the first of the reference's); a seed that
            is NaN throughout is missing.
        reference: the arm that all others are compared with.
        margin: the largest difference that does not matter, for "equivalent"; None for no such verdict.
        alpha: chance of any false "better" or "worse" in the whole family, and of any interval missing its difference.
    Returns:
        arm -> ``Comparison``, without the reference, in the order of ``scores``. Empty with the reference alone.
    Raises:
        ValueError: bad shapes, NaN in a part of a seed, an unknown reference, a margin or alpha out of range.
    """
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}")
    if margin is not None and not (margin > 0.0 and math.isfinite(margin)):
        raise ValueError(f"margin must be a positive number or None, got {margin}")
    base, arms = read_scores(scores, reference)
    data = differences(base, arms)
    found: dict[int, Comparison] = {}
    for i in range(len(arms)):
        noiseless = (
            data.sampling_A[i] == 0.0 and np.ptp(data.difference_AS[i][data.used_AS[i]], axis=0) == 0.0
            if (data.seeds_A[i])
            else False
        )
        identical = data.seeds_A[i] > 0 and np.array_equal(
            arms[i].score_SQ[: len(data.used_AS[i])][data.used_AS[i][: len(arms[i].score_SQ)]],
            base.score_SQ[data.used_AS[i]],
        )
        if data.seeds_A[i] == 0:
            found[i] = _unknown(math.nan, 0, (*data.notes[i], "no seed in common with the reference"))
        elif identical or noiseless:
            found[i] = _constant(data, i, "the same difference everywhere: its noise is unknown", margin)
    tested = np.array([i for i in range(len(arms)) if i not in found], dtype=int)
    if tested.size and data.seeds_A[tested].max() < 2:
        for i in tested:
            note = "one seed: the noise over seeds is unknown"
            found[int(i)] = _unknown(float(data.mean_A[i]), 1, (*data.notes[i], note))
    elif tested.size:
        for i, one in zip(tested, _judged(selected(data, tested), margin, alpha)):
            found[int(i)] = one
    return {arm.name: found[i] for i, arm in enumerate(arms)}


def _judged(data: Differences, margin: float | None, alpha: float) -> list[Comparison]:
    """The comparisons of arms with noise, at least one of them with two seeds."""
    noise = posterior(data)
    _, groups_A = np.unique(data.used_AS, axis=0, return_inverse=True)
    family = Family(noise, data.seeds_A, data.question_A, np.ravel(groups_A))
    own_A = family.own_p(data.mean_A)
    adjusted_A, half_A = family.adjusted(own_A), family.half_widths(alpha)
    result = []
    for i, d in enumerate(data.mean_A.tolist()):
        notes = list(data.notes[i])
        if data.seeds_A[i] == 1:
            notes.append("one seed: its noise over seeds is taken from the other arms")
        low, high = d - float(half_A[i]), d + float(half_A[i])
        median = float(noise.sigma_G[np.searchsorted(np.cumsum(noise.arm_AG[i]), 0.5)])
        verdict = verdict_of(low, high, margin)
        result.append(
            Comparison(
                d,
                low,
                high,
                float(adjusted_A[i]),
                verdict,
                int(data.seeds_A[i]),
                "; ".join(notes),
                float(own_A[i]),
                median,
            )
        )
    return result
