"""Every combination of the levels of several factors: main effects and interactions, as one family.

For factors f with levels l and scores y of each combination, seed s and question q, the effect of levels l_T of a set T of
factors, each against its factor's first level, is the contrast

    C_sq = sum_g w_g y_gsq,    w_g = prod_{f in T} ([g_f = l_f] - [g_f = first]) prod_{f not in T} 1 / L_f

that is, for one factor, its level minus its first level averaged over all levels of the others (main effect); for two, how
much further apart the levels of one are at the other's level than at the other's first one (interaction); and so on.
Weights sum to 0, so that what a seed and a question do to every combination is gone. With sigma_g the combination's std over
seeds, from ``model.posterior`` on the combinations' differences to the first one,

    error of the mean of C ~ N(0, (sum_g w_g^2 sigma_g^2 + D_C) / S + q_C)

D_C and q_C: the sampling and the questions' variance of C, from its own two-way table as in ``data``. The family's p is that
of all contrasts together: given the sigmas, errors that are jointly normal exceed their bounds at most as often as
independent ones (Sidak 1967), whatever their correlation; then the average over the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.special import erfc

from Verl.statistics.compare import verdict_of
from Verl.statistics.data import ArmScores, differences, read_arm, variances
from Verl.statistics.joint import LEVELS, Family, Tails, to_family
from Verl.statistics.model import Posterior, posterior

_DRAWS = 4  # of the stds, for each draw of what they share


@dataclass(frozen=True)
class Effect:
    """A main effect (one factor) or an interaction (several).

    Args:
        factors: their places. levels: the level of each, compared with its factor's first.
        difference, low, high: with the simultaneous interval; infinite where the noise over seeds is unknown.
        p: two-sided, adjusted for all effects together. own_p: this one's alone.
        verdict: as for ``compare_with``: better means that the level's score is higher, or, of an interaction, that the
            levels together score more than the sum of what each does alone. seeds: that all combinations have.
        note: what was left out or could not be known.
    """

    factors: tuple[int, ...]
    levels: tuple[str, ...]
    difference: float
    low: float
    high: float
    p: float
    verdict: str
    seeds: int
    note: str = ""
    own_p: float = 1.0


class Crossing(Family):
    """The joint error of contrasts whose variances are known as draws.

    Args:
        variance_CN: of each contrast's mean, one for each draw of the noise.
    """

    def __init__(self, variance_CN: np.ndarray):
        self._tails = Tails(variance_CN, np.full(variance_CN.shape, 1.0 / variance_CN.shape[1]))
        family = []
        for x_C in self._tails.x(LEVELS):
            outside_CN = np.minimum(erfc(x_C[:, None] / np.sqrt(2.0 * variance_CN)), 1.0 - 1e-12)
            family.append(float(-np.expm1(np.log1p(-outside_CN).sum(axis=0)).mean()))
        self._to_family = to_family(np.array(family))


def levels_of(combinations_: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each factor's levels in the order in which they come.

    Raises:
        ValueError: a factor of one level, or a combination that is missing or not as long as the others.
    """
    if len({len(one) for one in combinations_}) != 1:
        raise ValueError("every combination needs a level of every factor")
    levels = [list(dict.fromkeys(of_factor)) for of_factor in zip(*combinations_)]
    if any(len(of_factor) < 2 for of_factor in levels):
        raise ValueError("every factor needs two levels")
    missing = [one for one in product(*levels) if one not in set(map(tuple, combinations_))]
    if missing:
        raise ValueError(f"{len(missing)} combination(s) are missing, such as {', '.join(missing[0])}")
    return levels


def contrasts(levels: Sequence[Sequence[str]]) -> dict[tuple[tuple[int, ...], tuple[str, ...]], np.ndarray]:
    """(factors, levels) of every effect -> weights w over the combinations, in the order of ``itertools.product``."""
    found = {}
    for size in range(1, len(levels) + 1):
        for chosen in combinations(range(len(levels)), size):
            for at in product(*(levels[f][1:] for f in chosen)):
                weight = np.ones(1)
                for f, of_factor in enumerate(levels):
                    own = np.full(len(of_factor), 1.0 / len(of_factor))
                    if f in chosen:
                        own = np.array([float(level == at[chosen.index(f)]) for level in of_factor])
                        own[0] -= 1.0
                    weight = np.outer(weight, own).ravel()
                found[chosen, at] = weight
    return found


def crossed(
    scores: Mapping[tuple[str, ...], object], *, margin: float | None = None, alpha: float = 0.05
) -> list[Effect]:
    """Main effects, then interactions of two factors, and so on.

    Args:
        scores: combination of levels -> scores as for ``compare_with``; each factor's first level is what its others are
            compared with. Seeds that some combination lacks are left out.
        margin, alpha: as for ``compare_with``.
    Raises:
        ValueError: a combination missing, bad shapes, or NaN in a part of a seed.
    """
    levels = levels_of(list(scores))
    arms = [read_arm("-".join(one), scores[one]) for one in product(*levels)]
    if len({arm.score_SQ.shape[1] for arm in arms}) != 1:
        raise ValueError("all combinations need the same questions in the same order")
    arms, note = _common_seeds(arms)
    weights = contrasts(levels)
    seeds = int(arms[0].score_SQ.shape[0])
    score_GSQ = np.array([arm.score_SQ for arm in arms])
    contrast_CSQ = np.tensordot(np.array(list(weights.values())), score_GSQ, axes=1)
    mean_C = contrast_CSQ.mean(axis=(1, 2)) if seeds else np.full(len(weights), math.nan)
    if seeds < 2 or _all_constant(contrast_CSQ):
        why = "the same differences everywhere" if seeds > 1 else f"{seeds} seed(s) that all combinations have"
        note = "; ".join(filter(None, (note, f"{why}: the noise over seeds is unknown")))
        return [Effect(*key, float(mean), -math.inf, math.inf, 1.0, "undecided", seeds, note)
                for key, mean in zip(weights, mean_C)]  # fmt: skip
    family = Crossing(_variances_of_means(arms, list(weights.values()), contrast_CSQ))
    own_C = family.own_p(mean_C)
    ends = zip(mean_C - (half_C := family.half_widths(alpha)), mean_C + half_C, family.adjusted(own_C), own_C)
    return [
        Effect(*key, float(mean), float(low), float(high), float(p), verdict_of(low, high, margin), seeds, note, float(own))
        for key, mean, (low, high, p, own) in zip(weights, mean_C, ends)
    ]


def _common_seeds(arms: list[ArmScores]) -> tuple[list[ArmScores], str]:
    """The combinations over the seeds that all of them have, and what was left out."""
    most = max(arm.score_SQ.shape[0] for arm in arms)
    count = min(arm.score_SQ.shape[0] for arm in arms)
    there_S = np.all([arm.present_S[:count] for arm in arms], axis=0)
    note = "" if there_S.sum() == most else f"over the {int(there_S.sum())} of {most} seeds that all combinations have"
    return [ArmScores(arm.name, arm.score_SQ[:count][there_S], arm.samples) for arm in arms], note


def _all_constant(contrast_CSQ: np.ndarray) -> bool:
    """Whether nothing varies, over seeds or questions, that noise could be judged by."""
    return not np.ptp(contrast_CSQ, axis=(1, 2)).any()


def _variances_of_means(arms: list[ArmScores], weights: list[np.ndarray], contrast_CSQ: np.ndarray) -> np.ndarray:
    """Variance of each contrast's mean over seeds, for each draw of the stds, (C, draws)."""
    seeds, questions = contrast_CSQ.shape[1:]
    sampling_C, question_C = np.array([variances(one_SQ) for one_SQ in contrast_CSQ]).T
    square_CG = np.array(weights) ** 2
    if all(arm.samples for arm in arms):  # one more right answer than was seen, as in data.rare_event_variance
        sampling_C = sampling_C + square_CG @ np.array([1.0 / (seeds * (questions * arm.samples) ** 2) for arm in arms])
    sigma_GN = _drawn(posterior(differences(arms[0], arms[1:])))
    return (square_CG @ sigma_GN**2 + sampling_C[:, None]) / seeds + question_C[:, None]


def _drawn(noise: Posterior) -> np.ndarray:
    """Draws of every combination's std over seeds, the first combination's first, (G, draws); always the same ones."""
    weight_GNG = np.concatenate([noise.base_NG[None], noise.arm_ANG])
    below = np.cumsum(weight_GNG, axis=2)
    below /= below[:, :, -1:]
    rng = np.random.default_rng(20)
    drawn = []
    for _ in range(_DRAWS):
        place = (below < rng.random(below.shape[:2])[:, :, None]).sum(axis=2)
        drawn.append(noise.sigma_G[np.minimum(place, noise.sigma_G.size - 1)])
    return np.concatenate(drawn, axis=1)
