"""Scores of a study, checked and reduced to what the comparison needs.

Shapes: ``_A`` compared arms (the reference is not one of them), ``_S`` seeds, ``_Q`` questions, ``_K`` samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ArmScores:
    """One arm's scores, averaged over samples.

    Args:
        name: of the arm.
        score_SQ: mean score of each seed and question; a missing seed is a row of NaN.
        samples: 0/1 samples behind each mean, 0 where the scores are not 0/1 or the number is unknown.
        notes: what had to be left out.
    """

    name: str
    score_SQ: np.ndarray
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def present_S(self) -> np.ndarray:
        """Whether each seed has scores."""
        return ~np.isnan(self.score_SQ[:, 0])


@dataclass(frozen=True)
class Differences:
    """Differences to the reference, arm by arm, over the seeds that both have.

    Args:
        names: of the arms, shape (A,).
        used_AS: whether arm and reference both have the seed; S counts the reference's seeds.
        difference_AS: mean over questions of arm minus reference; 0 where not used.
        sampling_A: D_a, variance of one seed's mean difference that comes from drawing answers, and from seeds acting on
            single questions: MS_e / Q of the two-way table seeds x questions.
        question_A: q_a, variance of the arm's mean difference that comes from the choice of questions.
        shared_sampling: v_0, the part of D_a that all arms have in common through the reference.
        notes: per arm, what was left out or is unknown.
        largest_std: what the std over seeds cannot exceed: 0.5 for 0/1 scores, else infinity.
    """

    names: tuple[str, ...]
    used_AS: np.ndarray
    difference_AS: np.ndarray
    sampling_A: np.ndarray
    question_A: np.ndarray
    shared_sampling: float
    notes: tuple[tuple[str, ...], ...]
    largest_std: float = np.inf

    @property
    def seeds_A(self) -> np.ndarray:
        return self.used_AS.sum(axis=1)

    @property
    def mean_A(self) -> np.ndarray:
        """Mean difference of each arm, NaN without a common seed."""
        seeds_A = self.seeds_A
        total_A = self.difference_AS.sum(axis=1)
        return np.where(seeds_A > 0, total_A / np.maximum(seeds_A, 1), np.nan)


def read_arm(name: str, scores) -> ArmScores:
    """Check one arm's scores and average them over samples.

    Args:
        scores: (seeds, questions) of mean scores or (seeds, questions, samples) of 0/1 or real scores. A seed that is
            NaN throughout is missing.
    Raises:
        ValueError: another shape, nothing in it, infinite scores, or NaN in a part of a seed.
    """
    array = np.asarray(scores)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"scores of {name!r} must have shape (seeds, questions) or (seeds, questions, samples) and not be empty, "
            f"got {array.shape}"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"scores of {name!r} must be numbers, got {array.dtype}")
    nan_S = np.zeros(array.shape[0], dtype=bool)
    if array.dtype.kind == "f":
        if np.isinf(array).any():
            raise ValueError(f"scores of {name!r} contain infinite values")
        nan = np.isnan(array).reshape(array.shape[0], -1)
        nan_S, some_S = nan.all(axis=1), nan.any(axis=1)
        if (some_S & ~nan_S).any():
            raise ValueError(
                f"scores of {name!r} are NaN for some questions of seed number {int(np.flatnonzero(some_S & ~nan_S)[0])}: "
                "give all scores of a seed, or NaN for all of them where the seed is missing"
            )
    known = array[~nan_S] if nan_S.any() else array
    binary = known.dtype.kind == "b" or bool(((known == 0) | (known == 1)).all())
    samples = (array.shape[2] if array.ndim == 3 else 1) if binary else 0
    missing = [str(i) for i in np.flatnonzero(nan_S)]
    notes = (f"seed number {', '.join(missing)} is missing",) if missing else ()
    score_SQ = array.mean(axis=2, dtype=float) if array.ndim == 3 else array.astype(float)
    return ArmScores(name, score_SQ, samples, notes)


def read_scores(scores: Mapping[str, object], reference: str) -> tuple[ArmScores, list[ArmScores]]:
    """Check a study's scores; returns the reference and the other arms in the given order.

    Raises:
        ValueError: an unknown reference, or arms with another number of questions than the reference.
    """
    if reference not in scores:
        raise ValueError(f"the reference {reference!r} is not among the arms: {', '.join(map(str, scores)) or 'none'}")
    base = read_arm(reference, scores[reference])
    arms = [read_arm(name, values) for name, values in scores.items() if name != reference]
    for arm in arms:
        if arm.score_SQ.shape[1] != base.score_SQ.shape[1]:
            raise ValueError(
                f"{arm.name!r} has {arm.score_SQ.shape[1]} questions and the reference {reference!r} "
                f"{base.score_SQ.shape[1]}: all arms need the same questions in the same order"
            )
    return base, arms


def _centred(difference_SQ: np.ndarray) -> np.ndarray:
    """Residuals of the two-way table without its seed and question means."""
    by_seed, by_question = difference_SQ.mean(axis=1, keepdims=True), difference_SQ.mean(axis=0, keepdims=True)
    return difference_SQ - by_seed - by_question + difference_SQ.mean()


def rare_event_variance(arm: ArmScores, base: ArmScores, seeds: int) -> float:
    """Variance of one seed's mean difference if each side had one right (or wrong) 0/1 answer more than it has.

    Where answers are nearly all wrong or nearly all right, a handful of them decides the estimated variance; one more
    keeps "none in 1,000" from counting as certainty. Relative to c observed ones this adds 1 / c.
    """
    if not (arm.samples and base.samples):
        return 0.0
    questions = base.score_SQ.shape[1]
    return sum(1.0 / (seeds * (questions * side.samples) ** 2) for side in (arm, base))


def variances(difference_SQ: np.ndarray) -> tuple[float, float]:
    """Sampling variance of one seed's mean difference, and the questions' variance of the mean over these seeds."""
    seeds, questions = difference_SQ.shape
    if questions < 2:
        return 0.0, 0.0
    by_question = float(difference_SQ.mean(axis=0).var(ddof=1))
    if seeds == 1:  # answers and questions cannot be separated: all counts as sampling
        return by_question / questions, 0.0
    within = float((_centred(difference_SQ) ** 2).sum()) / ((seeds - 1) * (questions - 1))
    return within / questions, max(by_question - within / seeds, 0.0) / questions


def _shared_sampling(base: ArmScores, arms: list[ArmScores], used_AS: np.ndarray, sampling_A: np.ndarray) -> float:
    """v_0: what the differences' sampling noise has in common, the median covariance of two arms' residuals.

    Kept between 0.1 and 0.9 of the smallest D_a. With one arm (or no common two seeds) nothing can be known: half.
    """
    repeated = np.flatnonzero((used_AS.sum(axis=1) >= 2) & (sampling_A > 0.0))
    if repeated.size == 0:
        return 0.5 * float(sampling_A[sampling_A > 0.0].min()) if (sampling_A > 0.0).any() else 0.0
    smallest = float(sampling_A[repeated].min())
    common_S = used_AS[repeated].all(axis=0)
    seeds, questions = int(common_S.sum()), base.score_SQ.shape[1]
    if repeated.size < 2 or seeds < 2 or questions < 2:
        return 0.5 * smallest
    rows = np.flatnonzero(common_S)
    residual_AX = np.array(
        [_centred(arms[i].score_SQ[rows] - base.score_SQ[rows]).ravel() for i in repeated], dtype=float
    )
    covariance_AA = residual_AX @ residual_AX.T / ((seeds - 1) * (questions - 1) * questions)
    shared = float(np.median(covariance_AA[np.triu_indices(repeated.size, 1)]))
    return float(np.clip(shared, 0.1 * smallest, 0.9 * smallest))


def differences(base: ArmScores, arms: list[ArmScores]) -> Differences:
    """Reduce arms and reference to paired differences and their known variances.

    Pairing by question and seed removes whatever both sides share there: the questions' difficulty, and the noise of
    answers that were drawn from common random numbers.
    """
    total = base.score_SQ.shape[0]
    used_AS, difference_AS = np.zeros((len(arms), total), dtype=bool), np.zeros((len(arms), total))
    sampling_A, question_A, notes = np.zeros(len(arms)), np.zeros(len(arms)), []
    for i, arm in enumerate(arms):
        own = min(arm.score_SQ.shape[0], total)
        used_AS[i, :own] = arm.present_S[:own] & base.present_S[:own]
        said = [*arm.notes]
        beyond = int(arm.present_S[total:].sum())
        if beyond:
            said.append(f"{beyond} seed(s) that the reference lacks are left out")
        rows = np.flatnonzero(used_AS[i])
        if rows.size:
            difference_SQ = arm.score_SQ[rows] - base.score_SQ[rows]
            difference_AS[i, rows] = difference_SQ.mean(axis=1)
            sampling_A[i], question_A[i] = variances(difference_SQ)
            if rows.size < base.present_S.sum():
                said.append(f"compared over {rows.size} of the reference's {int(base.present_S.sum())} seeds")
        notes.append(tuple(said))
    shared = _shared_sampling(base, arms, used_AS, sampling_A)
    rare_A = np.array([rare_event_variance(arm, base, max(1, int(n))) for arm, n in zip(arms, used_AS.sum(axis=1))])
    return Differences(
        tuple(arm.name for arm in arms),
        used_AS,
        difference_AS,
        sampling_A + rare_A,
        question_A,
        shared + 0.5 * float(rare_A.min(initial=0.0) if rare_A.size else 0.0),
        tuple(notes),
        0.5 if base.samples and all(arm.samples for arm in arms) else np.inf,
    )
