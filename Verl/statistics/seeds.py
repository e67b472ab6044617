"""Statistics over seeds: is one arm better than another, and how many seeds would it take to tell?

Shapes: ``_S`` seeds, ``_Q`` questions, ``_R`` resamples; scores of several tasks are runs x tasks, as in rliable
(Agarwal et al. 2021, arXiv 2108.13264). All raise ``ValueError`` on empty, NaN or mismatched input.

The model behind the paired comparison: the same S seeds and the same Q questions for both arms, one difference each,
    D_sq = effect + u_s + v_q + e_sq,
u over seeds (training), v over questions, e the rest (sampling an answer). MS_u, MS_v, MS_e are the mean squares of
the two-way analysis of variance without replication; they estimate Q var(u) + var(e), S var(v) + var(e) and var(e).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from Verl.statistics.questions import Difference, Interval, checked
from Verl.statistics.student import t_critical, t_two_sided_p


def iqm(scores) -> float:
    """Interquartile mean over all runs and tasks: the mean without the lowest and the highest quarter.

    With N = runs x tasks values, int(N / 4) are cut on each side (``scipy.stats.trim_mean(scores, 0.25, axis=None)``,
    which rliable's ``aggregate_iqm`` calls). ``scores``: any shape.
    """
    ordered = np.sort(checked(np.ravel(scores), "scores"))
    cut = int(0.25 * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())


def probability_of_improvement(x, y) -> float:
    """Chance that a run of X beats a run of Y, averaged over tasks; a tie counts 1/2 (rliable's definition).

    Per task the mean over all pairs of 1[x > y] + 1/2 1[x = y], that is Mann-Whitney's U / (runs_x runs_y).
    ``x``: runs_x x tasks, ``y``: runs_y x tasks.
    """
    x, y = checked(x, "x", 2), checked(y, "y", 2)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same tasks, got {x.shape[1]} and {y.shape[1]}")
    wins = (x[:, None, :] > y[None, :, :]) + 0.5 * (x[:, None, :] == y[None, :, :])
    return float(wins.mean(axis=(0, 1)).mean())


def stratified_bootstrap_interval(
    scores, statistic: Callable[..., float] = iqm, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of ``statistic`` where the runs of each task are resampled on their own (rliable).

    ``scores``: runs x tasks, or a tuple of such matrices for a statistic of several arguments
    (``probability_of_improvement``). With three runs and one task it covers about 75 %, not 95 % (measured in the
    tests), as rliable's does: use it for several tasks, and ``seed_interval`` for one.
    """
    groups = scores if isinstance(scores, tuple) else (scores,)
    groups = [checked(group, "scores", 2) for group in groups]
    rng, replicates = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = [np.take_along_axis(g, rng.integers(g.shape[0], size=g.shape), axis=0) for g in groups]
        replicates.append(statistic(*drawn))
    low, high = np.quantile(replicates, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(float(statistic(*groups)), float(low), float(high))


def seed_interval(values, confidence: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval, mean +- t_{S-1} std / sqrt(S); shape (S,), at least two seeds.

    t and not the bootstrap: resampling three numbers cannot know that the std of three numbers is itself a guess.
    """
    values_S = checked(values)
    if values_S.size < 2:
        raise ValueError("one seed has no interval over seeds")
    mean = float(values_S.mean())
    half = t_critical(confidence, values_S.size - 1) * float(values_S.std(ddof=1)) / math.sqrt(values_S.size)
    return Interval(mean, mean - half, mean + half)


def _with_t(difference: float, variance: float, df: float, confidence: float) -> Difference:
    """``difference`` with interval and p from its variance and degrees of freedom."""
    if variance == 0.0:  # scores are multiples of 1/Q, so few seeds do agree by chance: no more than a sign test then
        return Difference(difference, difference, difference, 1.0 if difference == 0.0 else 2.0**-df)
    error = math.sqrt(variance)
    half = t_critical(confidence, df) * error
    return Difference(difference, difference - half, difference + half, t_two_sided_p(difference / error, df))


def paired_seeds(a, b, confidence: float = 0.95) -> Difference:
    """Mean of a - b over the same seeds by the paired t test (``scipy.stats.ttest_rel``); a and b have shape (S,).

    Speaks for other seeds on these very questions. At least two seeds. Where all seeds show the very same difference,
    t would be infinite; p is then that of the sign test, 2^(1-S).
    """
    a_S, b_S = checked(a, "a"), checked(b, "b")
    if a_S.shape != b_S.shape:
        raise ValueError(f"a and b must have the same seeds, got {a_S.size} and {b_S.size}")
    if a_S.size < 2:
        raise ValueError("one seed cannot show noise over seeds: at least two are needed")
    delta_S = a_S - b_S
    return _with_t(float(delta_S.mean()), float(delta_S.var(ddof=1)) / a_S.size, a_S.size - 1, confidence)


def _paired_grid(a, b) -> np.ndarray:
    """a - b as a checked seeds x questions matrix."""
    a_SQ, b_SQ = checked(a, "a", 2), checked(b, "b", 2)
    if a_SQ.shape != b_SQ.shape:
        raise ValueError(f"a and b must have the same seeds and questions, got shapes {a_SQ.shape} and {b_SQ.shape}")
    if min(a_SQ.shape) < 2:
        raise ValueError(f"needs at least two seeds and two questions, got shape {a_SQ.shape}")
    return a_SQ - b_SQ


def _two_way_variance(ms_u: float, ms_v: float, ms_e: float, seeds: int, questions: int) -> tuple[float, float]:
    """Variance of the mean difference and its degrees of freedom, from the three mean squares (module docstring).

    var = (max(MS_u, MS_e) + max(MS_v - MS_e, 0)) / (S Q). Three seeds that happen to agree better than sampling noise
    allows are no evidence of small noise, hence the floor; df by Satterthwaite, where the seeds' part always counts
    S - 1. In simulations the interval then covers 95 % or more for every mixture of u, v and e; without the floor it
    fell to 90 % with two seeds.
    """
    over_seeds, over_questions = max(ms_u, ms_e), max(ms_v - ms_e, 0.0)
    total = over_seeds + over_questions
    if total == 0.0:
        return 0.0, seeds - 1.0
    df = total**2 / (over_seeds**2 / (seeds - 1) + over_questions**2 / (questions - 1))
    return total / (seeds * questions), df


def _mean_squares(delta_SQ: np.ndarray) -> tuple[float, float, float]:
    """MS_u, MS_v and MS_e of the module docstring."""
    (seeds, questions), by_seed, by_question = delta_SQ.shape, delta_SQ.mean(axis=1), delta_SQ.mean(axis=0)
    rest = delta_SQ - by_seed[:, None] - by_question[None, :] + delta_SQ.mean()
    ms_u, ms_v = questions * by_seed.var(ddof=1), seeds * by_question.var(ddof=1)
    return float(ms_u), float(ms_v), float((rest**2).sum() / ((seeds - 1) * (questions - 1)))


def paired_two_way(a, b, confidence: float = 0.95) -> Difference:
    """Mean of a - b that would hold for other seeds *and* other questions; a and b are seeds x questions, same order.

    Two-way random effects (module docstring), t interval; for S >= 2 and Q >= 2. This is the test of the verdicts.
    """
    delta_SQ = _paired_grid(a, b)
    variance, df = _two_way_variance(*_mean_squares(delta_SQ), *delta_SQ.shape)
    return _with_t(float(delta_SQ.mean()), variance, df, confidence)


class Noise(NamedTuple):
    """The stds of u, v and e of the module docstring, as ``smallest_detectable_effect`` takes them."""

    seed_std: float
    question_std: float
    sampling_std: float


def noise_of(a, b) -> Noise:
    """The noise of a paired difference, from mean squares (method of moments, negative variances as 0).

    a and b are seeds x questions; or one average per seed, shape (S,): then all of it counts as noise over seeds.
    From few seeds this is a rough estimate.
    """
    if np.ndim(a) == 1:
        return Noise(float(np.std(checked(a, "a") - checked(b, "b"), ddof=1)), 0.0, 0.0)
    delta_SQ = _paired_grid(a, b)
    (seeds, questions), (ms_u, ms_v, ms_e) = delta_SQ.shape, _mean_squares(delta_SQ)
    over_seeds, over_questions = max(ms_u - ms_e, 0.0) / questions, max(ms_v - ms_e, 0.0) / seeds
    return Noise(math.sqrt(over_seeds), math.sqrt(over_questions), math.sqrt(ms_e))


def two_level_bootstrap(a, b, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Difference:
    """As ``paired_two_way`` by resampling: seeds first, then questions, the same questions for every drawn seed.

    Questions are drawn once per resample because all seeds share them; drawing them anew for every seed (nested) would
    treat a hard question as noise that averages out. The deviations of seeds are stretched by sqrt(S / (S - 1)),
    what resampling S values loses. It counts sampling noise up to three times (Owen 2007, arXiv 0712.1111), so it is
    wide where that dominates, and with under ten seeds too narrow where training noise does: a check on
    ``paired_two_way``, which has neither fault. p as in ``paired_bootstrap``.
    """
    delta_SQ = _paired_grid(a, b)
    seeds, questions = delta_SQ.shape
    difference, by_question = float(delta_SQ.mean()), delta_SQ.mean(axis=0)
    stretched = by_question + (delta_SQ - by_question) * math.sqrt(seeds / (seeds - 1))
    rng = np.random.default_rng(seed)
    weight_RS = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples) / seeds
    weight_RQ = rng.multinomial(questions, np.full(questions, 1.0 / questions), size=resamples) / questions
    replicates_R = ((weight_RS @ stretched) * weight_RQ).sum(axis=1)
    low, high = np.quantile(replicates_R, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    extreme = int((np.abs(replicates_R - difference) >= abs(difference) - 1e-12).sum())
    return Difference(difference, float(low), float(high), (1 + extreme) / (1 + resamples))


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p-values in the given order: the i-th smallest of m becomes max over j <= i of (m - j + 1) p_(j).

    Rejecting where the result is at most alpha keeps the chance of any false rejection at alpha (Holm 1979).
    """
    p = np.asarray(p_values, dtype=float)
    if p.size == 0:
        return p
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("p-values must be a flat list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]))
    return adjusted


def _power(shift: float, df: float, critical: float) -> float:
    """P(|T| > critical) for a noncentral t with ``shift``: the mean over chi^2_df / df of two normal tails."""
    spread = math.sqrt(2.0 / df)
    # log of a chi-square variable is close to normal: a grid in the log covers df = 1 and df = 10^4 alike
    log_w = np.linspace(-12.0 * max(spread, 0.2) - 4.0 / df, 6.0 * max(spread, 0.2), 1001)
    weight = np.exp(0.5 * df * (1.0 + log_w - np.exp(log_w)))  # 1 at its peak: without that it vanishes from df = 1,500 on
    root = critical * np.exp(0.5 * log_w)
    tail = [math.erfc(z) for z in np.concatenate([root - shift, root + shift]) / math.sqrt(2.0)]
    return float((np.tile(weight, 2) * tail).sum() / (2.0 * weight.sum()))


@lru_cache(maxsize=1024)
def smallest_detectable_effect(
    seeds: int,
    questions: int,
    seed_std: float,
    question_std: float = 0.0,
    sampling_std: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
) -> float:
    """The true difference that ``paired_two_way`` finds with probability ``power`` at level alpha / comparisons.

    error^2 = seed_std^2 / S + question_std^2 / Q + sampling_std^2 / (S Q), the stds of u, v and e of the module
    docstring (for one 0/1 sample a question, sampling_std is about sqrt(2 pass@1 (1 - pass@1))); the effect is
    error x the shift at which the noncentral t test reaches ``power``. ``comparisons`` is Holm's first step. One seed
    gives infinity: no effect could be distinguished from the noise of training.
    """
    if seeds < 1 or questions < 2 or comparisons < 1:
        raise ValueError(f"need seeds >= 1, questions >= 2, comparisons >= 1: {seeds}, {questions}, {comparisons}")
    if min(seed_std, question_std, sampling_std) < 0 or not 0 < alpha < power < 1:
        raise ValueError("standard deviations must not be negative, and 0 < alpha < power < 1")
    if seeds == 1:
        return math.inf
    noise = sampling_std**2
    variance, df = _two_way_variance(
        questions * seed_std**2 + noise, seeds * question_std**2 + noise, noise, seeds, questions
    )
    critical = t_critical(1.0 - alpha / comparisons, df)
    low, high = 0.0, 2.0 * critical + 10.0
    for _ in range(32):  # to 1e-8
        middle = (low + high) / 2.0
        low, high = (middle, high) if _power(middle, df, critical) < power else (low, middle)
    return math.sqrt(variance) * high


def _curve(steps, values) -> tuple[np.ndarray, np.ndarray]:
    steps, values = checked(steps, "steps"), checked(values)
    if steps.shape != values.shape:
        raise ValueError(f"steps and values must be equally long, got {steps.size} and {values.size}")
    if (np.diff(steps) <= 0).any():
        raise ValueError("steps must increase")
    return steps, values


def area_under_curve(steps, values) -> float:
    """Mean height of the curve by the trapezoid rule: the area divided by the span, so in the unit of ``values``."""
    steps, values = _curve(steps, values)
    if steps.size < 2:
        raise ValueError("an area needs at least two points")
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def steps_to_threshold(steps, values, threshold: float) -> float:
    """The first step at which the curve, straight between its points, reaches ``threshold``; infinity if it never does.

    Infinity and not NaN or the last step: medians and comparisons then still rank a run that never gets there last.
    """
    steps, values = _curve(steps, values)
    reached = np.flatnonzero(values >= threshold)
    if reached.size == 0:
        return math.inf
    i = int(reached[0])
    if i == 0:
        return float(steps[0])
    share = (threshold - values[i - 1]) / (values[i] - values[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
