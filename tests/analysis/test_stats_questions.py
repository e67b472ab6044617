"""Statistics over questions, against exact arithmetic, hand-computed tables, scipy and statsmodels."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar

from Verl.analysis import stats


def test_pass_at_k_is_the_exact_fraction_for_every_small_case():
    for n in range(1, 13):
        for c in range(n + 1):
            for k in range(1, n + 1):
                exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
                assert stats.pass_at_k(n, c, k) == float(exact), (n, c, k)


def test_pass_at_k_counts_the_subsets_with_a_right_answer():
    right = [1, 0, 0, 1, 0]
    subsets = list(combinations(right, 3))
    assert stats.pass_at_k(5, 2, 3) == sum(any(s) for s in subsets) / len(subsets) == 0.9


def test_pass_at_k_stays_exact_where_floats_would_lose_it():
    exact = 1 - Fraction(math.comb(9_997, 5_000), math.comb(10_000, 5_000))
    assert stats.pass_at_k(10_000, 3, 5_000) == float(exact)
    assert stats.pass_at_k(10**6, 1, 1) == 1e-6


def test_pass_at_k_of_arrays_and_of_bad_input():
    assert stats.pass_at_k(4, [0, 1, 4], 2).tolist() == [0.0, 0.5, 1.0]
    assert stats.pass_at_k(np.array([2, 4]), np.array([1, 1]), 2).tolist() == [1.0, 0.5]
    for n, c, k in ((4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), (4.5, 1, 1), (0, 0, 1)):
        with pytest.raises(ValueError):
            stats.pass_at_k(n, c, k)


def test_maj_at_k_by_hand():
    answers, correct = ["7", "7", "9"], [1, 1, 0]
    assert stats.maj_at_k(answers, correct) == 1.0
    # pairs: 77 right, 79 and 79 tied, half right each
    assert stats.maj_at_k(answers, correct, k=2) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert stats.maj_at_k(answers, correct, k=1) == pytest.approx(2 / 3)
    assert stats.maj_at_k([None, None, "3"], [0, 0, 1]) == 1.0  # no answer, no vote
    assert stats.maj_at_k([None, None], [0, 0]) == 0.0
    with pytest.raises(ValueError, match="both right and wrong"):
        stats.maj_at_k(["7", "7"], [1, 0])


def test_maj_at_k_by_sampling_agrees_with_all_subsets():
    answers, correct = ["a"] * 9 + ["b"] * 6 + ["c"] * 3, [1] * 9 + [0] * 9
    exact = stats.maj_at_k(answers, correct, k=5, draws=10_000)
    assert math.comb(18, 5) < 10_000
    assert stats.maj_at_k(answers, correct, k=5, draws=4000) == pytest.approx(exact, abs=0.025)


def test_mcnemar_by_hand_and_against_statsmodels():
    # 5 questions only a solves, 1 only b: p = 2 (C(6,0) + C(6,1)) / 2^6 = 14/64
    a, b = [1] * 5 + [0] + [1, 0], [0] * 5 + [1] + [1, 0]
    assert stats.mcnemar_exact(a, b) == 14 / 64 == stats.mcnemar_exact(b, a)
    assert stats.mcnemar_exact([1, 0], [1, 0]) == 1.0
    assert stats.mcnemar_exact([1, 0], [0, 1]) == 1.0  # 2 P would exceed 1
    rng = np.random.default_rng(0)
    for n in (10, 200, 1319):
        a, b = (rng.random(n) < 0.5).astype(int), (rng.random(n) < 0.55).astype(int)
        table = [[np.sum((a == i) & (b == j)) for j in (1, 0)] for i in (1, 0)]
        assert stats.mcnemar_exact(a, b) == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-10)


def test_mcnemar_refuses_what_is_not_paired_0_1():
    for a, b in (([1, 0], [1]), ([0.5], [1]), ([], []), ([math.nan], [1])):
        with pytest.raises(ValueError):
            stats.mcnemar_exact(a, b)


def test_bootstrap_interval_agrees_with_scipys_bca():
    values = np.random.default_rng(1).exponential(size=80)
    ours = stats.bootstrap_interval(values, resamples=20_000)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=0).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.04 * width and abs(ours.high - theirs.high) < 0.04 * width
    assert ours == stats.bootstrap_interval(values, resamples=20_000)


@pytest.mark.parametrize("p, n", [(0.5, 200), (0.1, 100), (0.9, 200)])
def test_bootstrap_interval_covers_and_misses_on_both_sides_alike(p, n):
    rng, sides = np.random.default_rng(2), [0, 0]
    for run in range(400):
        interval = stats.bootstrap_interval(rng.random(n) < p, resamples=500, seed=run)
        sides[0] += p < interval.low
        sides[1] += p > interval.high
    assert 6 <= sum(sides) <= 34  # 20 expected at 95 %; outside by chance in under 1 of 500
    assert max(sides) <= 24


def test_bootstrap_interval_of_as_many_right_as_wrong_lies_around_one_half():
    # one resample in six has exactly 10 right: counting those ties to one side would shift the interval by a step
    interval = stats.bootstrap_interval([0, 1] * 10, resamples=20_000)
    assert interval.low + interval.high == pytest.approx(1.0, abs=0.051)
    assert interval.low == pytest.approx(0.3, abs=0.051)


def test_bootstrap_interval_without_variation_claims_no_certainty():
    zero, one = stats.bootstrap_interval([0] * 50), stats.bootstrap_interval([1] * 50)
    assert zero.low == 0.0 and zero.high == pytest.approx(scipy_stats.beta.ppf(0.975, 1, 50))
    assert one.high == 1.0 and one.low == pytest.approx(scipy_stats.beta.ppf(0.025, 50, 1))
    for bad in ([], [0.5, math.nan], [[1, 0]]):
        with pytest.raises(ValueError):
            stats.bootstrap_interval(bad)


def test_paired_bootstrap_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(3)
    hard = rng.random(600)
    a, b = (rng.random(600) < hard + 0.03).astype(float), (rng.random(600) < hard).astype(float)
    ours, theirs = stats.paired_bootstrap(a, b, resamples=20_000), scipy_stats.ttest_rel(a, b)
    interval = theirs.confidence_interval()
    assert ours.difference == pytest.approx((a - b).mean())
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.003)
    # means are multiples of 1/600: the bootstrap counts ties in full, so its p lies a little higher
    assert theirs.pvalue - 0.01 <= ours.p <= theirs.pvalue + 0.04
    swapped = stats.paired_bootstrap(b, a, resamples=20_000)
    assert swapped.difference == -ours.difference


def test_paired_bootstrap_uses_the_pairing():
    hard = np.repeat([0.0, 1.0], 100)
    better = hard.copy()
    better[:12] = 1.0
    assert stats.paired_bootstrap(better, hard).p < 0.01 < scipy_stats.ttest_ind(better, hard).pvalue


def test_paired_bootstrap_at_the_edges():
    assert stats.paired_bootstrap([1, 0, 1], [1, 0, 1]) == (0.0, 0.0, 0.0, 1.0)
    assert stats.paired_bootstrap([1, 1, 1], [0, 0, 0]).p == 0.25  # three questions cannot say more: 2^(1-3)
    with pytest.raises(ValueError):
        stats.paired_bootstrap([1], [0])
    with pytest.raises(ValueError):
        stats.paired_bootstrap([1, 0], [0])
