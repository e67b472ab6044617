"""Statistics over questions: one model's score with its interval, two models on the same questions.

Shapes: ``_Q`` questions, ``_R`` bootstrap resamples. Every function raises ``ValueError`` on empty, NaN or
mismatched input rather than return a number that looks fine.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

_NORMAL = NormalDist()
_CHUNK = 2_000_000  # resampled values held at once: 16 MB, whatever the number of questions


class Interval(NamedTuple):
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float


class Difference(NamedTuple):
    """``difference`` = a - b with its confidence interval and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p: float


def checked(values, name: str = "values", dimensions: int = 1) -> np.ndarray:
    """``values`` as a float array of the given number of dimensions; ValueError if empty, NaN, infinite or another."""
    array = np.asarray(values, dtype=float)
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains {int((~np.isfinite(array)).sum())} value(s) that are NaN or infinite")
    return array


def _pass_at_k_one(n: int, c: int, k: int) -> float:
    if not (n == int(n) and c == int(c) and k == int(k)):
        raise ValueError(f"n, c and k must be whole numbers, got n={n}, c={c}, k={k}")
    n, c, k = int(n), int(c), int(k)
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"need 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def pass_at_k(n, c, k: int):
    """Unbiased pass@k of a question with ``c`` right answers among ``n`` samples: 1 - C(n-c, k) / C(n, k).

    The share of all k-subsets of the samples with at least one right answer (Chen et al. 2021, arXiv 2107.03374,
    section 2.1). Integers throughout and one division at the end, so the result is the float nearest to the fraction.

    Args:
        n: samples per question, a number or an array. c: right ones among them, same. k: one number.
    Returns:
        A float, or an array of the broadcast shape of ``n`` and ``c``; its mean over questions is the pass@k of a set.
    Raises:
        ValueError: unless 1 <= k <= n and 0 <= c <= n, all whole.
    """
    if np.ndim(n) == 0 and np.ndim(c) == 0:
        return _pass_at_k_one(n, c, k)
    n_Q, c_Q = np.broadcast_arrays(n, c)
    known = {pair: _pass_at_k_one(*pair, k) for pair in set(zip(n_Q.ravel().tolist(), c_Q.ravel().tolist()))}
    flat = [known[pair] for pair in zip(n_Q.ravel().tolist(), c_Q.ravel().tolist())]
    return np.array(flat, dtype=float).reshape(n_Q.shape)


def _vote(answers: Sequence[Hashable], right: dict[Hashable, bool]) -> float:
    """Share of the most frequent answers that are right (the mean of breaking a tie at random); no answer, no vote."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    return sum(right[answer] for answer in winners) / len(winners)


def maj_at_k(
    answers: Sequence[Hashable], correct: Sequence, k: int | None = None, draws: int = 2000, seed: int = 0
) -> float:
    """maj@k of one question: the chance that the majority answer of k of its samples is right (Wang et al. 2022).

    A tie counts as the share of right answers among the tied; a sample without a readable answer (None) does not vote.
    Averaged over all k-subsets of the n samples where there are at most ``draws`` of them, else over that many random
    subsets (standard error at most 0.5 / sqrt(draws)). arXiv 2203.11171.

    Raises:
        ValueError: lengths differ, k outside 1..n, or one answer stands as both right and wrong.
    """
    n = len(answers)
    if n != len(correct) or n == 0:
        raise ValueError(f"answers and correct must be equally long and not empty, got {n} and {len(correct)}")
    k = n if k is None else k
    if not 1 <= k <= n:
        raise ValueError(f"need 1 <= k <= n, got k={k}, n={n}")
    right: dict[Hashable, bool] = {}
    for answer, is_right in zip(answers, correct):
        if answer is not None and right.setdefault(answer, bool(is_right)) != bool(is_right):
            raise ValueError(f"the answer {answer!r} is given as both right and wrong")
    if math.comb(n, k) <= draws:
        votes = [_vote(subset, right) for subset in itertools.combinations(answers, k)]
    else:
        rng = np.random.default_rng(seed)
        votes = [_vote([answers[i] for i in rng.choice(n, k, replace=False)], right) for _ in range(draws)]
    return float(np.mean(votes))


def mcnemar_exact(a, b) -> float:
    """Two-sided exact McNemar p-value of two models on the same questions, from their paired 0/1 scores.

    With m questions where they differ, x of them in a's favour, p = min(1, 2 P(Binomial(m, 1/2) <= min(x, m - x)));
    questions where both are right or both wrong carry no information. m = 0 gives 1. (McNemar 1947; the exact form of
    ``statsmodels.stats.contingency_tables.mcnemar``.)

    Raises:
        ValueError: lengths differ, empty, or a value other than 0 and 1.
    """
    a_Q, b_Q = checked(a, "a"), checked(b, "b")
    if a_Q.shape != b_Q.shape:
        raise ValueError(f"a and b must be equally long, got {a_Q.size} and {b_Q.size}")
    if not (np.isin(a_Q, (0.0, 1.0)).all() and np.isin(b_Q, (0.0, 1.0)).all()):
        raise ValueError("McNemar's test needs 0/1 scores (one sample per question); use paired_bootstrap for averages")
    only_a, only_b = int((a_Q > b_Q).sum()), int((b_Q > a_Q).sum())
    m, tail, term = only_a + only_b, 0, 1  # integers of any size: no rounding however many questions differ
    for i in range(min(only_a, only_b) + 1):
        tail += term
        term = term * (m - i) // (i + 1)
    return min(1.0, 2 * tail / 2**m)


def _resampled_means(values_Q: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of ``resamples`` draws with replacement, shape (R,), in pieces of bounded memory."""
    n, means, per_chunk = values_Q.size, [], max(1, _CHUNK // values_Q.size)
    for start in range(0, resamples, per_chunk):
        index = rng.integers(n, size=(min(per_chunk, resamples - start), n))
        means.append(values_Q[index].mean(axis=1))
    return np.concatenate(means)


def _bca(values_Q: np.ndarray, means_R: np.ndarray, confidence: float) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated interval of a mean (Efron 1987, equations 2.3 and 6.6)."""
    mean, resamples = values_Q.mean(), means_R.size
    # Means of 0/1 scores repeat: half of the ties counts as below, or the correction would be biased itself.
    near = np.isclose(means_R, mean, rtol=0.0, atol=1e-12)
    below = (np.sum(means_R[~near] < mean) + 0.5 * np.sum(near)) / resamples
    bias = _NORMAL.inv_cdf(min(max(below, 1.0 / resamples), 1.0 - 1.0 / resamples))
    centred = values_Q - mean
    acceleration = np.sum(centred**3) / (6.0 * np.sum(centred**2) ** 1.5)
    levels = []
    for level in ((1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0):
        z = bias + _NORMAL.inv_cdf(level)
        levels.append(_NORMAL.cdf(bias + z / (1.0 - acceleration * z)))
    low, high = np.quantile(means_R, levels)
    return float(low), float(high)


def bootstrap_interval(values, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over questions with its bootstrap interval; ``values`` holds one number per question, shape (Q,).

    BCa and not percentile: with few right answers the percentile interval misses on one side mostly; BCa splits the
    misses evenly and is as narrow (measured in the tests). One question's samples must be averaged first: they are not
    independent. If all values are 0, or all 1, resampling would claim certainty: then the exact (Clopper-Pearson)
    bound 1 - (alpha/2)^(1/Q) stands in. The same seed gives the same interval.

    Raises:
        ValueError: empty, NaN, not one-dimensional, or confidence outside (0, 1).
    """
    values_Q = checked(values)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    mean = float(values_Q.mean())
    if np.ptp(values_Q) == 0.0:
        bound = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / values_Q.size)
        if mean in (0.0, 1.0):
            return Interval(mean, 0.0 if mean == 0.0 else 1.0 - bound, bound if mean == 0.0 else 1.0)
        return Interval(mean, mean, mean)
    means_R = _resampled_means(values_Q, resamples, np.random.default_rng(seed))
    return Interval(mean, *_bca(values_Q, means_R, confidence))


def paired_bootstrap(a, b, confidence: float = 0.95, resamples: int = 5000, seed: int = 0) -> Difference:
    """Mean of a - b over the same questions, with BCa interval and two-sided p-value; a and b have shape (Q,).

    p is the share of resampled differences, moved to mean 0, that are at least as far from 0 as the observed one
    (Efron and Tibshirani 1993, section 16.4), counting the observed one, and never below 2^(1-Q), the smallest p that
    any sign-flip test of Q questions can give. With 0/1 scores and few questions prefer ``mcnemar_exact``.

    Raises:
        ValueError: lengths differ, fewer than two questions, NaN.
    """
    a_Q, b_Q = checked(a, "a"), checked(b, "b")
    if a_Q.shape != b_Q.shape:
        raise ValueError(f"a and b must be equally long, got {a_Q.size} and {b_Q.size}")
    if a_Q.size < 2:
        raise ValueError("a paired bootstrap needs at least two questions")
    delta_Q = a_Q - b_Q
    difference, floor = float(delta_Q.mean()), 2.0 ** (1 - delta_Q.size)
    if np.ptp(delta_Q) == 0.0:
        return Difference(difference, difference, difference, 1.0 if difference == 0.0 else max(floor, 1 / resamples))
    means_R = _resampled_means(delta_Q, resamples, np.random.default_rng(seed))
    extreme = int((np.abs(means_R - difference) >= abs(difference) - 1e-12).sum())
    low, high = _bca(delta_Q, means_R, confidence)
    return Difference(difference, low, high, max(floor, (1 + extreme) / (1 + resamples)))
