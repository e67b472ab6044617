"""The model's posterior and the family's p against independent computations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from Verl.statistics.data import Differences
from Verl.statistics.joint import Family
from Verl.statistics.model import Posterior, posterior


def known_noise(arms, tau, tau_0):
    """A posterior without doubt: one value for every std."""
    sigma_G = np.array([tau])
    one = np.ones((arms, 1))
    return Posterior(
        np.full((arms, 1), tau**2), np.array([tau_0**2]), np.ones((arms, 1, 1)), sigma_G, one, np.ones(1), 1.0
    )


def test_known_variances_are_dunnett_with_infinitely_many_degrees_of_freedom():
    arms, seeds = 12, 4
    family = Family(known_noise(arms, 0.02, 0.02), np.full(arms, seeds), np.zeros(arms), np.zeros(arms, dtype=int))
    error = 0.02 * np.sqrt(2 / seeds)
    correlation = np.full((arms, arms), 0.5) + 0.5 * np.eye(arms)
    bound = 2.6
    inside = scipy_stats.multivariate_normal(np.zeros(arms), correlation, allow_singular=True).cdf(
        np.full(arms, bound), lower_limit=np.full(arms, -bound)
    )
    own = family.own_p(np.array([bound * error] * arms))
    assert own == pytest.approx(2 * scipy_stats.norm.sf(bound), rel=0.02)
    assert family.adjusted(own)[0] == pytest.approx(1 - inside, rel=0.03)
    assert family.half_widths(1 - inside)[0] == pytest.approx(bound * error, rel=0.01)


def test_one_comparison_needs_no_adjustment():
    family = Family(known_noise(1, 0.02, 0.02), np.array([3]), np.zeros(1), np.zeros(1, dtype=int))
    for p in (1e-4, 0.01, 0.05, 0.3):
        assert family.adjusted(np.array([p]))[0] == pytest.approx(p, rel=0.02)


def test_a_noisy_reference_ties_the_comparisons_together():
    arms = 20
    seeds, zero, together = np.full(arms, 3), np.zeros(arms), np.zeros(arms, dtype=int)
    quiet = Family(known_noise(arms, 0.02, 0.001), seeds, zero, together)
    noisy = Family(known_noise(arms, 0.001, 0.02), seeds, zero, together)
    p = np.array([0.01])
    assert quiet.adjusted(p)[0] == pytest.approx(1 - 0.99**arms, rel=0.03)  # independent
    assert noisy.adjusted(p)[0] < 0.03  # nearly one comparison
    apart = Family(known_noise(arms, 0.001, 0.02), seeds, zero, np.arange(arms))
    assert apart.adjusted(p)[0] == pytest.approx(1 - 0.99**arms, rel=0.03)


def given(difference_AS, sampling=0.0):
    difference_AS = np.asarray(difference_AS, dtype=float)
    arms = difference_AS.shape[0]
    return Differences(
        tuple(map(str, range(arms))),
        np.ones(difference_AS.shape, dtype=bool),
        difference_AS,
        np.full(arms, sampling),
        np.zeros(arms),
        sampling / 2,
        ((),) * arms,
    )


def test_sampling_the_references_noise_agrees_with_integrating_it_by_hand():
    # a second arm with one seed says nothing of any noise: it only sends the first through importance sampling
    one = given([[0.01, 0.03, -0.02, 0.02, 0.0]], sampling=2e-4)
    two = given([[0.01, 0.03, -0.02, 0.02, 0.0], [0.01, 0.0, 0.0, 0.0, 0.0]], sampling=2e-4)
    used_AS = np.ones((2, 5), dtype=bool)
    used_AS[1, 1:] = False
    exact, sampled = posterior(one), posterior(replace(two, used_AS=used_AS))
    assert sampled.effective < np.inf
    assert sampled.joint_AGG[0].sum() == pytest.approx(1.0)
    assert np.abs(sampled.joint_AGG[0].sum(axis=1) - exact.joint_AGG[0].sum(axis=1)).max() < 0.01
    log_total_GG = np.log(exact.variance_AG[0][:, None] + exact.reference_G)
    expected = (exact.joint_AGG[0] * log_total_GG).sum()
    assert (sampled.joint_AGG[0] * log_total_GG).sum() == pytest.approx(expected, abs=0.03)


def test_the_stds_are_found_again_from_many_arms():
    rng = np.random.default_rng(0)
    std_A = np.r_[np.full(20, 0.01), np.full(20, 0.05)]
    x_AS = std_A[:, None] * rng.standard_normal((40, 8)) - 0.02 * rng.standard_normal(8)
    found = posterior(given(x_AS, sampling=2e-6))
    median_A = found.sigma_G[(np.cumsum(found.arm_AG, axis=1) < 0.5).sum(axis=1)]
    assert np.median(median_A[:20]) == pytest.approx(0.01, rel=0.35)
    assert np.median(median_A[20:]) == pytest.approx(0.05, rel=0.35)
    base = found.sigma_G[(np.cumsum(found.base_G) < 0.5).sum()]
    assert base == pytest.approx(0.02, rel=0.6)


def test_alike_arms_shrink_to_each_other():
    rng = np.random.default_rng(1)
    x_AS = 0.02 * rng.standard_normal((30, 3)) - 0.02 * rng.standard_normal(3)
    found = posterior(given(x_AS, sampling=2e-6))
    own_A = x_AS.std(axis=1, ddof=1)
    median_A = found.sigma_G[(np.cumsum(found.arm_AG, axis=1) < 0.5).sum(axis=1)]
    assert np.std(np.log(median_A)) < 0.6 * np.std(np.log(own_A))
