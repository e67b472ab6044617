"""Every arm of a study against its reference: difference, simultaneous interval, adjusted p, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from Verl.statistics import VERDICTS  # noqa: F401  part of this module's interface
from Verl.statistics.data import ArmScores, Differences, differences, read_scores
from Verl.statistics.joint import Family
from Verl.statistics.model import posterior


@dataclass(frozen=True)
class ArmComparison:
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


def _unknown(difference: float, seeds: int, notes: tuple[str, ...]) -> ArmComparison:
    return ArmComparison(difference, -math.inf, math.inf, 1.0, "undecided", seeds, "; ".join(notes))


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


def _without_noise(data: Differences, i: int, arm: ArmScores, base: ArmScores) -> str | None:
    """What is to be said of an arm that has no noise to judge it by: "twin", "constant", or None for all others."""
    rows = np.flatnonzero(data.used_AS[i])
    if data.sampling_A[i] == 0.0 and np.ptp(data.difference_AS[i, rows]) == 0.0:
        return "constant"
    own_SQ, base_SQ = arm.score_SQ[rows], base.score_SQ[rows]
    return "twin" if rows.size > 1 and np.ptp(base_SQ) > 0.0 and np.array_equal(own_SQ, base_SQ) else None


def _untested(data: Differences, arms: list[ArmScores], base: ArmScores, margin: float | None) -> dict[int, ArmComparison]:
    """The comparisons that need no model, or for which there is none."""
    found: dict[int, ArmComparison] = {}
    for i, arm in enumerate(arms):
        difference, seeds, notes = float(data.mean_A[i]), int(data.seeds_A[i]), data.notes[i]
        if seeds == 0:
            found[i] = _unknown(math.nan, 0, (*notes, "no seed in common with the reference"))
            continue
        kind = _without_noise(data, i, arm, base)
        if kind == "constant":
            found[i] = _unknown(difference, seeds, (*notes, "the same difference everywhere: its noise is unknown"))
        elif kind == "twin":
            note = "; ".join([*notes, "the same scores as the reference"])
            found[i] = ArmComparison(0.0, 0.0, 0.0, 1.0, verdict_of(0.0, 0.0, margin), seeds, note, 1.0, 0.0)
    rest = [i for i in range(len(arms)) if i not in found]
    if rest and data.seeds_A[rest].max() < 2:
        for i in rest:
            notes = (*data.notes[i], "one seed: the noise over seeds is unknown")
            found[i] = _unknown(float(data.mean_A[i]), 1, notes)
    return found


def compare_with(
    scores: Mapping[str, object], reference: str, *, margin: float | None = None, alpha: float = 0.05
) -> dict[str, ArmComparison]:
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
        arm -> ``ArmComparison``, without the reference, in the order of ``scores``. Empty with the reference alone.
    Raises:
        ValueError: bad shapes, NaN in a part of a seed, an unknown reference, a margin or alpha out of range.
    """
    return compare_at(scores, reference, margin=margin, alphas=(alpha,))[0]


def compare_at(
    scores: Mapping[str, object], reference: str, *, margin: float | None, alphas: Sequence[float]
) -> list[dict[str, ArmComparison]]:
    """``compare_with`` at several alphas for the work of one."""
    if not all(0.0 < alpha < 0.5 for alpha in alphas):
        raise ValueError(f"alpha must lie between 0 and 0.5, got {', '.join(map(str, alphas))}")
    if margin is not None and not (margin > 0.0 and math.isfinite(margin)):
        raise ValueError(f"margin must be a positive number or None, got {margin}")
    base, arms = read_scores(scores, reference)
    data = differences(base, arms)
    found = [_untested(data, arms, base, margin) for _ in alphas]
    tested = np.array([i for i in range(len(arms)) if i not in found[0]], dtype=int)
    if tested.size:
        for of_alpha, judged in zip(found, _judged(selected(data, tested), margin, alphas)):
            of_alpha.update(zip(tested.tolist(), judged))
    return [{arm.name: of_alpha[i] for i, arm in enumerate(arms)} for of_alpha in found]


def _judged(data: Differences, margin: float | None, alphas: Sequence[float]) -> list[list[ArmComparison]]:
    """The comparisons of arms with noise, at least one of them with two seeds, at each alpha."""
    noise = posterior(data)
    _, groups_A = np.unique(data.used_AS, axis=0, return_inverse=True)
    family = Family(noise, data.seeds_A, data.question_A, np.ravel(groups_A))
    own_A = family.own_p(data.mean_A)
    adjusted_A = family.adjusted(own_A)
    below_AG = np.cumsum(noise.arm_AG, axis=1) < 0.5
    median_A = noise.sigma_G[np.minimum(below_AG.sum(axis=1), noise.sigma_G.size - 1)]
    borrowed = "one seed: its noise over seeds is taken from the other arms"
    judged = []
    for alpha in alphas:
        low_A, high_A = (data.mean_A + sign * family.half_widths(alpha) for sign in (-1.0, 1.0))
        judged.append(
            [
                ArmComparison(
                    difference=float(data.mean_A[i]),
                    low=float(low_A[i]),
                    high=float(high_A[i]),
                    p=float(adjusted_A[i]),
                    verdict=verdict_of(float(low_A[i]), float(high_A[i]), margin),
                    seeds=int(data.seeds_A[i]),
                    note="; ".join([*data.notes[i], *([borrowed] if data.seeds_A[i] == 1 else [])]),
                    own_p=float(own_A[i]),
                    seed_std=float(median_A[i]),
                )
                for i in range(len(data.names))
            ]
        )
    return judged
