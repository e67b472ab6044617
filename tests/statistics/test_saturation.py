"""The saturating fit: it finds what was planted, says how sure it is, and refuses what the data can't carry."""

import numpy as np
import pytest

from Verl.statistics.saturation import Fit, Refusal, fit_curve, influence

STEPS = np.arange(0.0, 101.0, 5.0)


def curve(start, asymptote, midpoint, exponent, x=STEPS):
    with np.errstate(divide="ignore"):
        return start + (asymptote - start) / (1 + (midpoint / x) ** exponent)


def drawn(truth, seeds=4, answers=512, random_seed=0):
    return np.random.default_rng(random_seed).binomial(answers, truth, (seeds, truth.size)) / answers


@pytest.mark.parametrize("truth", [(0.45, 0.8, 25, 2), (0.1, 0.3, 8, 1.2), (0.0, 1.0, 40, 4)])
def test_an_exact_curve_gives_its_parameters(truth):
    found = fit_curve(STEPS, curve(*truth)[None])
    assert (found.start, found.asymptote, found.midpoint, found.exponent) == pytest.approx(truth, rel=1e-3, abs=1e-3)
    assert found.at([0, found.midpoint]) == pytest.approx([truth[0], (truth[0] + truth[1]) / 2], abs=1e-3)
    assert found.low <= found.asymptote <= found.high


def test_any_unit_of_x_and_y_will_do():
    found = fit_curve(STEPS * 1e4, 300 + 100 * curve(0.45, 0.8, 25, 2)[None], limits=None)
    assert (found.asymptote, found.midpoint) == pytest.approx((380, 25e4), rel=1e-3)


def test_the_influence_of_seeds_and_points_adds_up_to_the_fit():
    y_SX = drawn(curve(0.45, 0.8, 25, 2))
    found = fit_curve(STEPS, y_SX)
    assert found.asymptote_SX.shape == y_SX.shape and found.asymptote_SX.mean() == pytest.approx(found.asymptote)
    assert np.exp(found.log_midpoint_SX.mean()) == pytest.approx(found.midpoint)
    assert found.noise == pytest.approx(0.01, rel=0.6)
    # one point of one seed moved: the fit follows it as that point's influence says, to first order
    for place in (6, 15):
        moved = y_SX.copy()
        moved[1, place] += 0.01
        change = fit_curve(STEPS, moved).asymptote - found.asymptote
        own = influence(STEPS, moved, np.array([found.start, found.asymptote, np.log(found.midpoint), np.log(found.exponent)]))
        first_order = (own[1] - found.asymptote_SX)[1, place] / y_SX.size
        assert change == pytest.approx(first_order, rel=0.2, abs=1e-5)


def test_the_profile_interval_covers_the_asymptote():
    found = [fit_curve(STEPS, drawn(curve(0.45, 0.8, 20, 2), seeds=1, random_seed=i)) for i in range(60)]
    inside = [one.low <= 0.8 <= one.high for one in found if isinstance(one, Fit)]
    assert len(inside) > 50 and np.mean(inside) >= 0.88


REFUSED = [
    ("points", STEPS[:4], curve(0.45, 0.8, 25, 2)[:4]),
    ("beyond its noise", STEPS, np.full(STEPS.size, 0.5)),
    ("falls", STEPS, curve(0.6, 0.3, 25, 2)),
    ("then loses", STEPS, np.where(STEPS < 50, curve(0.45, 0.8, 15, 3), 0.5)),
    ("open", STEPS, 0.45 + 0.002 * STEPS),
    ("first point", STEPS, curve(0.45, 0.8, 1, 2)),
]


@pytest.mark.parametrize(("reason", "x", "truth"), REFUSED, ids=[reason for reason, *_ in REFUSED])
def test_what_the_data_cannot_carry_is_refused_with_its_reason(reason, x, truth):
    found = fit_curve(x, drawn(truth))
    assert isinstance(found, Refusal) and reason in found.reason


@pytest.mark.parametrize(
    ("x", "y"), [([0, 1, 1], [[1, 2, 3]]), ([0, 1], [[1, 2, 3]]), ([0, 1], [[1, np.nan]]), ([-1, 1], [[0, 1]]), ([], [])]
)
def test_bad_input_is_an_error(x, y):
    with pytest.raises(ValueError):
        fit_curve(x, y)
