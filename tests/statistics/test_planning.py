"""Shares of the noise, smallest difference, and where the next hour is best spent."""

import math

import numpy as np
import pytest

from Verl.statistics.compare import compare_with
from Verl.statistics.planning import StudyNoise, best_split, cochran_samples, noise_of_study, smallest_difference

NOISE = StudyNoise(seeds=2e-4, interaction=0.0, answers=4e-4, choice=0.0, questions=500, samples=1)


def study(rng, arms, seeds, questions, samples, std, effect=0.0):
    mean_AS = 0.6 + std * rng.standard_normal((arms, seeds))
    mean_AS[1::2] += effect
    chance = mean_AS[:, :, None] + rng.uniform(-0.2, 0.2, questions)
    return {f"a{i}": one for i, one in enumerate(rng.random((arms, seeds, questions, samples)) < chance[..., None])}


def test_shares_by_hand():
    noise = StudyNoise(seeds=3.0, interaction=1.0, answers=8.0, choice=0.5, questions=100, samples=2)
    assert noise.squared_error(2, 4) == pytest.approx((3 + 1 + 8 / 4) / 2 + 0.5)
    assert noise.squared_error(2, 4, 400) == pytest.approx((3 + (1 + 2) / 4) / 2 + 0.125)
    shares = noise.shares(2)
    assert shares["answers"] == pytest.approx((8 / 2 / 2) / ((3 + 1 + 4) / 2 + 0.5))
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_parts_are_found_again():
    rng = np.random.default_rng(0)
    found = noise_of_study(study(rng, 12, 8, 800, 4, std=0.02), "a0")
    assert found.seeds == pytest.approx(2 * 0.02**2, rel=0.5)
    # p (1 - p) with p uniform on 0.6 +- 0.2: 0.24 - 0.04 / 3, both sides
    assert found.answers == pytest.approx(2 * (0.24 - 0.04 / 3) / 800, rel=0.1)
    assert found.interaction < 0.1 * found.answers and found.samples == 4


def test_averaged_samples_count_as_answers_and_seeds_acting_on_questions_are_distinguished():
    rng = np.random.default_rng(1)
    chance = np.clip(0.5 + 0.25 * rng.standard_normal((6, 6, 400)), 0, 1)
    scores = {f"a{i}": one for i, one in enumerate(rng.random((6, 6, 400, 8)) < chance[..., None])}
    whole = noise_of_study(scores, "a0")
    averaged = noise_of_study({name: x.mean(axis=2) for name, x in scores.items()}, "a0")
    assert whole.interaction == pytest.approx(2 * np.var(chance) / 400, rel=0.3)
    assert averaged.interaction == 0.0
    assert averaged.answers == pytest.approx(whole.interaction + whole.answers / 8, rel=0.02)


def test_no_two_seeds_no_noise():
    with pytest.raises(ValueError, match="two seeds"):
        noise_of_study({"a": np.eye(1, 5), "b": np.zeros((1, 5))}, "a")


def test_smallest_difference_falls_with_seeds_and_samples_and_rises_with_arms():
    def smallest(**changed):
        options = {"seeds": 4, "samples": 2, "arms": 8, "studies": 40} | changed
        return smallest_difference(NOISE, **options)

    here = smallest()
    assert smallest(seeds=8) < 0.8 * here
    assert smallest(samples=16) < here < smallest(arms=30)
    assert smallest(power=0.5) < here < smallest(alpha=0.01)
    assert smallest(seeds=1) == math.inf
    nearly_known = math.sqrt(NOISE.squared_error(12, 8)) * (2.5 + 0.84)
    assert smallest(seeds=12, samples=8) == pytest.approx(nearly_known, rel=0.35)


def test_smallest_difference_is_what_the_method_finds():
    # the promise: planted at that size, it is found with about the promised chance
    noise = StudyNoise(2 * 0.015**2, 0.0, 2 * 0.2267 / 300, 0.0, 300, 2)
    effect = smallest_difference(noise, seeds=5, samples=2, arms=6, power=0.8)
    found = []
    for i in range(40):
        scores = study(np.random.default_rng([5, i]), 6, 5, 300, 2, std=0.015, effect=effect)
        found += [
            one.verdict == "better" for name, one in compare_with(scores, "a0").items() if name in ("a1", "a3", "a5")
        ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.15)


def test_best_split_by_hand():
    # 3 seeds, 1 sample, se^2 = (2e-4 + 4e-4 / K) / S; 3 hours: a seed costs 1 + 0.1 K, a sample for three seeds 0.3
    best, seeds, samples = best_split(NOISE, seeds=3, samples=1, budget=3.0, run_cost=1.0, sample_cost=0.1)
    assert (seeds.seeds, seeds.samples) == (5, 1) and seeds.cost == pytest.approx(2.2)
    assert (samples.seeds, samples.samples) == (3, 11) and samples.cost == pytest.approx(3.0)
    assert samples.error == pytest.approx(math.sqrt((2e-4 + 4e-4 / 11) / 3))
    assert (best.seeds, best.samples) == (4, 5)  # 4 x 0.3 for the old seeds, 1.5 for the new one: 2.7
    assert best.error <= min(seeds.error, samples.error) and best.cost <= 3.0 + 1e-9


def test_nothing_to_spend_changes_nothing():
    for one in best_split(NOISE, seeds=3, samples=2, budget=0.0, run_cost=1.0, sample_cost=0.1):
        assert (one.seeds, one.samples, one.cost) == (3, 2, 0.0)


def test_cochrans_rule_is_the_optimum_of_a_large_budget():
    assert cochran_samples(NOISE, 1.0, 0.02) == pytest.approx(math.sqrt(2.0 * 50.0))
    assert cochran_samples(StudyNoise(0.0, 0.0, 1.0, 0.0, 10, 1), 1.0, 1.0) == math.inf
    best, _, _ = best_split(NOISE, seeds=1, samples=1, budget=300.0, run_cost=1.0, sample_cost=0.02, max_samples=40)
    assert best.samples == pytest.approx(10, abs=2)


@pytest.mark.parametrize("options", [{"budget": -1.0}, {"run_cost": 0.0}, {"sample_cost": 0.0}])
def test_bad_costs(options):
    with pytest.raises(ValueError, match="budget"):
        best_split(NOISE, **({"seeds": 3, "samples": 1, "budget": 1.0, "run_cost": 1.0, "sample_cost": 0.1} | options))


@pytest.mark.parametrize("options", [{"seeds": 0}, {"arms": 1}, {"power": 0.01}, {"alpha": 0.9}])
def test_bad_plans(options):
    with pytest.raises(ValueError, match="need"):
        smallest_difference(NOISE, **({"seeds": 3, "samples": 1, "arms": 4} | options))
