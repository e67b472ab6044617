"""Main effects and interactions of crossed factors: by hand, planted, and their error rates."""

from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from Verl.statistics.crossed import contrasts, crossed


def study(rng, shape=(2, 2), seeds=4, questions=200, std=0.01, effect=lambda arm: 0.0):
    """0/1 scores around 0.6 of every combination; `effect` of its places moves its chance."""
    difficulty = rng.uniform(-0.3, 0.3, questions)
    found = {}
    for arm in product(*map(range, shape)):
        chance = 0.6 + effect(arm) + std * rng.standard_normal(seeds)[:, None] + difficulty
        found[tuple(map(str, arm))] = (rng.random((seeds, questions)) < np.clip(chance, 0, 1)).astype(float)
    return found


def flat(mean_S):
    """Every question scores its seed's value."""
    return np.repeat(np.asarray(mean_S, dtype=float)[:, None], 2, axis=1)


def test_contrasts_by_hand():
    weights = contrasts([["8", "2"], ["a", "b", "c"]])
    # combinations: 8a 8b 8c 2a 2b 2c
    assert weights[(0,), ("2",)].tolist() == pytest.approx([-1 / 3] * 3 + [1 / 3] * 3)
    assert weights[(1,), ("c",)].tolist() == [-0.5, 0.0, 0.5, -0.5, 0.0, 0.5]
    assert weights[(0, 1), ("2", "b")].tolist() == [1.0, -1.0, 0.0, -1.0, 1.0, 0.0]
    assert len(weights) == 1 + 2 + 2 and all(abs(weight.sum()) < 1e-12 for weight in weights.values())
    assert contrasts([["0", "1"]] * 3)[(0, 1, 2), ("1",) * 3].tolist() == [-1, 1, 1, -1, 1, -1, -1, 1]


def test_differences_by_hand_and_what_seeds_share_is_gone():
    shared = np.array([0.1, -0.2, 0.05])  # what a seed does to every combination
    noise = np.array([[0.01, -0.01, 0.0], [0.0, 0.01, -0.01], [-0.01, 0.0, 0.01], [0.01, 0.0, -0.01]])
    means = dict(zip(product("ab", "xy"), (0.5, 0.6, 0.7, 0.9)))
    first, second, both = crossed({arm: flat(mean + shared + own) for (arm, mean), own in zip(means.items(), noise)})
    assert (first.difference, second.difference) == (pytest.approx(0.25), pytest.approx(0.15))
    assert both.difference == pytest.approx(0.1) and (both.factors, both.levels) == ((0, 1), ("b", "y"))
    assert first.seeds == 3 and first.low < 0.25 < first.high and first.high - first.low < 0.2


def test_many_seeds_without_sampling_noise_are_the_t_test_of_each_contrast():
    rng = np.random.default_rng(2)
    value_GS = rng.normal(0.5, 0.1, (4, 60))
    found = crossed(dict(zip(product("ab", "xy"), map(flat, value_GS))))
    for one, weight in zip(found, ([-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, -1, -1, 1])):
        # the contrast's own t takes the noise of this contrast alone; the model that of the four combinations
        assert one.own_p == pytest.approx(scipy_stats.ttest_1samp(np.array(weight) @ value_GS, 0.0).pvalue, rel=0.3, abs=0.03)
        assert one.p >= one.own_p and (one.p <= 0.05) == (not one.low <= 0.0 <= one.high)


def test_three_factors_and_three_levels():
    rng = np.random.default_rng(4)
    found = crossed(study(rng, (2, 3, 2), seeds=3, effect=lambda arm: -0.3 * (arm == (1, 2, 1))))
    places = [(0,), (1,), (1,), (2,), (0, 1), (0, 1), (0, 2), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2)]
    assert [one.factors for one in found] == places
    of_all_three = {one.levels: one for one in found if len(one.factors) == 3}
    assert of_all_three["1", "2", "1"].verdict == "worse" and of_all_three["1", "1", "1"].verdict == "undecided"


def test_what_cannot_be_known_is_undecided():
    arms = dict(zip(product("ab", "xy"), np.full((4, 1, 5), 0.5)))
    assert all(one.verdict == "undecided" and np.isinf(one.high) and "1 seed(s)" in one.note for one in crossed(arms))
    assert all("noise over seeds is unknown" in one.note for one in crossed({key: np.full((3, 5), 0.5) for key in arms}))
    lacking = study(np.random.default_rng(0))
    lacking["0", "1"][2] = np.nan
    assert {(one.seeds, one.note) for one in crossed(lacking)} == {(3, "over the 3 of 4 seeds that all combinations have")}


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({("a", "x"): 0, ("a", "y"): 0, ("b", "x"): 0}, "missing, such as b, y"),
        ({("a", "x"): 0, ("a", "y"): 0}, "every factor needs two levels"),
        ({("a", "x"): 0, ("b",): 0}, "a level of every factor"),
    ],
)
def test_combinations_that_are_no_grid_are_refused(scores, said):
    with pytest.raises(ValueError, match=said):
        crossed({key: np.zeros((2, 3)) for key in scores})


def test_false_alarms_and_power():
    """40 studies of 2 x 2 x 4 seeds each; docs/statistics.md has larger simulations. Any effect shown of the three where
    there is none: at most 0.05 is the promise, and 7 or more of 40 would have chance 0.005 then."""
    rng = np.random.default_rng(7)
    null = [crossed(study(rng)) for _ in range(40)]
    assert sum(any(one.p <= 0.05 for one in found) for found in null) < 7
    planted = [crossed(study(rng, effect=lambda arm: -0.25 * (arm == (1, 1)))) for _ in range(10)]
    assert sum(found[2].verdict == "worse" for found in planted) > 7
    truth = [-0.125, -0.125, -0.25]
    inside = [all(one.low <= true <= one.high for one, true in zip(found, truth)) for found in planted]
    assert sum(inside) > 7
