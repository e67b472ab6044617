"""Planted differences and nulls: how often verdicts are right. The full table: tests/benchmarks/resolution.py."""

import numpy as np
import pytest

from tests.benchmarks.resolution_scenarios import SCENARIOS, UNSEEN, Scenario, alike, mixed, one_wild, study
from Verl.analysis.stats import compare_with

# small enough for CI; the bound on false alarms is what 0.06 would exceed once in a thousand such tests
NULLS = 60
BOUND = 10
CASES = [
    Scenario("alike", alike(0.01), arms=12, questions=128, samples=4),
    Scenario("mixed, one sample", mixed(0.005, 0.05), arms=12, questions=128, samples=1),
    Scenario("one wild", one_wild(0.01, 0.08), arms=12, questions=128, samples=4),
    Scenario("collapses", alike(0.01), arms=12, questions=128, samples=4, collapse=0.1),
    Scenario("two arms", alike(0.03), arms=2, questions=128, samples=1),
    Scenario("unequal seeds", alike(0.02), arms=8, seeds=5, questions=128, samples=2, ragged=True),
    Scenario("nearly all wrong", alike(0.002), arms=8, questions=256, samples=1, level=0.01, profile=20.0),
    Scenario("rewards", alike(0.02), arms=8, questions=128, samples=2, real=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_false_alarms(case):
    wrong = 0
    for i in range(NULLS):
        found = compare_with(study(case, np.random.default_rng([1, i]), np.zeros(case.arms)), "a0")
        wrong += any(one.verdict in ("better", "worse") for one in found.values())
    assert wrong <= BOUND


def test_planted_differences_are_found_and_intervals_hold_them():
    case = Scenario("power", alike(0.01), arms=27, seeds=3, samples=8)
    found, covered = [], 0
    for i in range(25):
        truth = np.zeros(case.arms)
        truth[1::2] = 0.05
        result = list(compare_with(study(case, np.random.default_rng([2, i]), truth), "a0").values())
        found += [one.verdict == "better" for one in result[0::2]]
        covered += all(one.low <= t <= one.high for one, t in zip(result, truth[1:]))
    assert np.mean(found) >= 0.7
    assert covered >= 21


def test_equivalence_with_a_margin():
    case = Scenario("equal", alike(0.002), arms=4, seeds=5, samples=8, questions=512)
    truth = np.array([0.0, 0.0, 0.04, 0.0])
    verdicts = []
    for i in range(10):
        result = compare_with(study(case, np.random.default_rng([3, i]), truth), "a0", margin=0.03)
        verdicts.append([one.verdict for one in result.values()])
    assert [row[0] for row in verdicts].count("equivalent") >= 8
    assert "equivalent" not in [row[1] for row in verdicts]


def test_pairing_by_seed_and_question_pays():
    # the same studies, once with the seeds of the other arms in another order
    case = Scenario("shared", alike(0.003), arms=6, seeds=4, samples=1, shared_seed=0.03, common_draws=True)
    paired, apart = [], []
    for i in range(5):
        scores = study(case, np.random.default_rng([4, i]), np.zeros(6))
        paired += [one.high - one.low for one in compare_with(scores, "a0").values()]
        mixed_up = {name: x if name == "a0" else x[::-1] for name, x in scores.items()}
        apart += [one.high - one.low for one in compare_with(mixed_up, "a0").values()]
    assert np.median(paired) < 0.6 * np.median(apart)


@pytest.mark.parametrize("case", [SCENARIOS[0], SCENARIOS[7], SCENARIOS[10], UNSEEN[5]], ids=lambda case: case.name)
def test_the_simulated_studies_have_the_mean_that_they_claim(case):
    truth = np.zeros(case.arms)
    truth[1] = 0.05
    seen = []
    for i in range(12):
        scores = study(case, np.random.default_rng([5, i]), truth)
        seen.append([x.mean() for x in scores.values()])
    mean_A = np.mean(seen, axis=0)
    others = np.delete(mean_A, 1)
    assert mean_A[1] - others.mean() == pytest.approx(0.05, abs=0.03 if case.collapse else 0.015)
    assert others.mean() == pytest.approx(case.level - 0.3 * case.collapse, abs=0.03)
