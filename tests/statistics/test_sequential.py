"""Adding seeds until it is decided: bounds, decisions, error under stopping."""

import numpy as np
import pytest

from Verl.statistics.compare import compare_with
from Verl.statistics.sequential import SeedPlan, decide, look_levels


def study(rng, arms, seeds, std, effects, questions=100, samples=4):
    mean_AS = 0.6 + std * rng.standard_normal((arms, seeds)) + np.asarray(effects)[:, None]
    chance = mean_AS[:, :, None] + rng.uniform(-0.2, 0.2, questions)
    return {f"a{i}": one for i, one in enumerate(rng.random((arms, seeds, questions, samples)) < chance[..., None])}


def first_seeds(scores, counts):
    return {name: x[: counts[name]] for name, x in scores.items()}


def test_one_look_is_the_fixed_test():
    assert look_levels([5]) == pytest.approx([0.05], rel=0.005)


def test_two_looks_by_quadrature():
    # spending t^1 at half and all of the information: the first look gets alpha / 2, and both together alpha
    first, second = look_levels([4, 8], rho=1.0)
    assert first == pytest.approx(0.025, rel=0.005)
    from scipy.stats import multivariate_normal, norm

    bound = norm.isf(first / 2), norm.isf(second / 2)
    joint = multivariate_normal([0, 0], [[1, 0.5**0.5], [0.5**0.5, 1]])
    inside = joint.cdf(bound, lower_limit=[-bound[0], -bound[1]])
    assert 1 - inside == pytest.approx(0.05, rel=0.01)


def test_bounds_against_random_walks():
    looks = [3, 4, 5, 6, 7, 8, 9, 10]
    levels = look_levels(looks, alpha=0.05)
    assert (levels < 0.05).all()
    from scipy.stats import norm

    walk = np.cumsum(np.random.default_rng(0).standard_normal((200_000, 10)), axis=1)[:, np.array(looks) - 1]
    crossed = np.abs(walk) / np.sqrt(looks) > norm.isf(levels / 2)
    assert crossed.any(axis=1).mean() == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("looks", [[], [3, 3], [5, 4], [0, 2]])
def test_bad_looks(looks):
    with pytest.raises(ValueError, match="looks"):
        look_levels(looks)


def test_more_comparisons_spend_more_carefully():
    few, many = SeedPlan((3, 5, 8), 1).levels(), SeedPlan((3, 5, 8), 40).levels()
    assert few[0] < 0.05 and (many <= few + 1e-6).all()


def test_a_large_effect_stops_at_once_and_a_null_does_not():
    scores = study(np.random.default_rng(0), 5, 8, 0.01, [0, 0.25, 0, 0, -0.25])
    plan = SeedPlan((3, 4, 6, 8), 4, margin=0.02, futility=0.0)
    found = decide(first_seeds(scores, dict.fromkeys(scores, 3)), "a0", plan)
    assert found["a1"].verdict == "better" and found["a4"].verdict == "worse"
    assert found["a1"].stops and "after 3 seeds" in found["a1"].reason
    assert not found["a2"].stops and "goes on" in found["a2"].reason


def test_a_decision_stands_and_the_stopped_arm_needs_no_more_seeds():
    scores = study(np.random.default_rng(0), 4, 8, 0.01, [0, 0.25, 0, 0.03])
    plan = SeedPlan((3, 5, 8), 3, futility=0.0)
    counts = dict.fromkeys(scores, 3)
    decided = decide(first_seeds(scores, counts), "a0", plan)
    early = decided["a1"]
    for seeds in (5, 8):
        counts.update({name: seeds for name in scores if name == "a0" or not decided[name].stops})
        decided = decide(first_seeds(scores, counts), "a0", plan, decided)
    assert decided["a1"] is early and early.seeds == 3
    assert all(one.stops for one in decided.values())
    assert "undecided after all 8 seeds" in decided["a2"].reason


def test_hopeless_arms_stop_undecided():
    scores = study(np.random.default_rng(2), 6, 4, 0.06, [0, 0, 0, 0, 0, 0])
    found = decide(scores, "a0", SeedPlan((4, 5), 5, margin=0.02))
    assert any(one.stops and one.verdict == "undecided" and "chance" in one.reason for one in found.values())


def test_equivalence_is_found_and_stops():
    scores = study(np.random.default_rng(1), 3, 6, 0.002, [0, 0, 0], questions=2000, samples=8)
    found = decide(scores, "a0", SeedPlan((6, 8), 2, margin=0.03))
    assert {one.verdict for one in found.values()} == {"equivalent"} and all(one.stops for one in found.values())


def test_seeds_that_are_no_look():
    scores = study(np.random.default_rng(0), 3, 4, 0.02, [0, 0, 0])
    with pytest.raises(ValueError, match="looks"):
        decide(scores, "a0", SeedPlan((3, 5), 2))
    with pytest.raises(ValueError, match="comparisons"):
        decide(scores, "a0", SeedPlan((4, 5), 1))


def test_the_last_look_alone_is_compare_with():
    scores = study(np.random.default_rng(3), 4, 5, 0.02, [0, 0.06, 0, 0])
    found, fixed = decide(scores, "a0", SeedPlan((5,), 3)), compare_with(scores, "a0")
    for name, one in fixed.items():
        assert found[name].verdict == one.verdict
        assert found[name].comparison.low == pytest.approx(one.low, rel=0.01)
