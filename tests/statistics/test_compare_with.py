"""compare_with: exact limits, invariances, edge cases."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from Verl.analysis.stats import compare_with
from Verl.statistics.compare import verdict_of
from Verl.statistics.data import differences, read_scores

ROOT = Path(__file__).resolve().parents[2]


def binary_study(rng, arms=6, seeds=4, questions=200, samples=4, std=0.02, effects=None):
    """Arms a0 (the reference), a1, ...: 0/1 scores around 0.6."""
    mean_AS = 0.6 + std * rng.standard_normal((arms, seeds))
    if effects is not None:
        mean_AS += np.asarray(effects)[:, None]
    chance = mean_AS[:, :, None] + rng.uniform(-0.3, 0.3, questions)
    scores = rng.random((arms, seeds, questions, samples)) < np.clip(chance, 0.0, 1.0)[..., None]
    return {f"a{i}": scores[i].astype(float) for i in range(arms)}


def per_seed(values_S):
    """Scores without noise within a seed: every question scores the seed's value."""
    return np.repeat(np.asarray(values_S, dtype=float)[:, None], 2, axis=1)


def test_two_arms_without_sampling_noise_are_students_paired_t():
    rng = np.random.default_rng(3)
    for seeds in (3, 5, 8):
        a_S, b_S = rng.normal(0.02, 0.03, seeds), rng.normal(0.0, 0.03, seeds)
        found = compare_with({"base": per_seed(b_S), "arm": per_seed(a_S)}, "base")["arm"]
        expected = scipy_stats.ttest_rel(a_S, b_S)
        assert found.difference == pytest.approx((a_S - b_S).mean())
        assert found.p == pytest.approx(expected.pvalue, rel=0.25, abs=0.01)
        low, high = expected.confidence_interval(0.95)
        assert found.high - found.low == pytest.approx(high - low, rel=0.3)


def test_many_seeds_without_sampling_noise_are_dunnetts_test():
    rng = np.random.default_rng(5)
    x_AS = rng.normal(0.0, 1.0, (6, 60))
    x_AS[3] += 0.5
    found = compare_with({f"a{i}": per_seed(x) for i, x in enumerate(x_AS)}, "a0")
    expected = scipy_stats.dunnett(*x_AS[1:], control=x_AS[0])
    for one, p in zip(found.values(), expected.pvalue):
        assert one.p == pytest.approx(p, rel=0.35, abs=0.03)
    interval = expected.confidence_interval(0.95)
    widths = [one.high - one.low for one in found.values()]
    assert np.mean(widths) == pytest.approx(float(np.mean(interval.high - interval.low)), rel=0.1)


def test_variances_by_hand():
    # two seeds, two questions; arm - base is [[1, 0], [0, 0]]: means by seed 0.5, 0; residuals +-0.25; MS_e = 4 / 16
    base, arms = read_scores({"base": np.zeros((2, 2)), "arm": [[1.0, 0.0], [0.0, 0.0]]}, "base")
    data = differences(base, arms)
    assert data.mean_A[0] == 0.25
    assert data.difference_AS.tolist() == [[0.5, 0.0]]
    rare = 2 * 1.0 / (2 * (2 * 1) ** 2)  # one more answer on each side: 1 / (S (Q K)^2), twice
    assert data.sampling_A[0] == pytest.approx(0.25 / 2 + rare)
    assert data.question_A[0] == pytest.approx(0.0)  # the questions' means 0.5, 0: variance 0.125 = MS_e / S


def test_sampling_noise_is_the_binomial_one_and_common_random_numbers_cancel():
    rng = np.random.default_rng(0)
    chance = np.full((4, 2000), 0.5)
    apart = {name: (rng.random((4, 2000)) < chance).astype(float) for name in "ab"}
    base, arms = read_scores(apart, "a")
    assert differences(base, arms).sampling_A[0] == pytest.approx(2 * 0.25 / 2000, rel=0.1)
    draws = rng.random((4, 2000))
    common = {"a": (draws < 0.5).astype(float), "b": (draws < 0.52).astype(float), "c": (draws < 0.48).astype(float)}
    base, arms = read_scores(common, "a")
    assert (differences(base, arms).sampling_A < 0.1 * 2 * 0.25 / 2000).all()


def test_samples_or_their_means_give_the_same_difference_and_nearly_the_same_interval():
    scores = binary_study(np.random.default_rng(1))
    whole = compare_with(scores, "a0")
    averaged = compare_with({name: x.mean(axis=2) for name, x in scores.items()}, "a0")
    for name, one in whole.items():
        assert one.difference == pytest.approx(averaged[name].difference)
        assert one.high == pytest.approx(averaged[name].high, abs=0.002)


def test_order_and_names_of_the_arms_do_not_matter():
    scores = binary_study(np.random.default_rng(2), effects=[0, 0.1, 0, 0, -0.1, 0.02])
    first = compare_with(scores, "a0", margin=0.02)
    again = compare_with({f"x{n}": scores[n] for n in ["a3", "a0", "a5", "a2", "a4", "a1"]}, "xa0", margin=0.02)
    assert list(again) == ["xa3", "xa5", "xa2", "xa4", "xa1"]
    for name, one in first.items():
        other = again["x" + name]
        assert (one.verdict, one.seeds) == (other.verdict, other.seeds)
        assert [one.p, one.low, one.high] == pytest.approx([other.p, other.low, other.high], rel=1e-6)


def test_order_of_questions_and_scale_of_scores_do_not_matter():
    scores = {name: x.mean(axis=2) for name, x in binary_study(np.random.default_rng(4)).items()}
    order = np.random.default_rng(0).permutation(200)
    one = compare_with(scores, "a0")
    shuffled = compare_with({name: x[:, order] for name, x in scores.items()}, "a0")
    scaled = compare_with({name: 100.0 * x + 7.0 for name, x in scores.items()}, "a0")
    negated = compare_with({name: -x for name, x in scores.items()}, "a0")
    for name in one:
        assert shuffled[name].p == pytest.approx(one[name].p, rel=1e-6)
        assert scaled[name].p == pytest.approx(one[name].p, rel=1e-6)
        assert scaled[name].low == pytest.approx(100.0 * one[name].low, rel=1e-6)
        # other quasi-random points: the integration's own error
        assert negated[name].low == pytest.approx(-one[name].high, rel=0.06)


def test_p_and_interval_agree():
    for seed in range(4):
        scores = binary_study(np.random.default_rng(seed), effects=[0, 0.05, 0.06, 0.07, 0.08, 0.1])
        for alpha in (0.01, 0.05, 0.2):
            for one in compare_with(scores, "a0", alpha=alpha).values():
                assert one.own_p <= one.p + 1e-9
                assert (one.p <= alpha) == (one.low > 0.0 or one.high < 0.0)


def test_no_effect_of_a_distant_arm_on_the_estimate_of_another():
    scores = binary_study(np.random.default_rng(6))
    alone = compare_with(scores, "a0")
    scores["a5"] = scores["a5"] * 0.0
    beside = compare_with(scores, "a0")
    assert beside["a5"].verdict == "worse"
    assert beside["a1"].difference == alone["a1"].difference


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.01, 0.03, None, "better"),
        (-0.03, -0.01, None, "worse"),
        (-0.01, 0.02, None, "undecided"),
        (-0.01, 0.02, 0.02, "equivalent"),
        (-0.01, 0.021, 0.02, "undecided"),
        (0.005, 0.015, 0.02, "equivalent"),
        (0.005, 0.03, 0.02, "better"),
    ],
)
def test_verdicts(low, high, margin, verdict):
    assert verdict_of(low, high, margin) == verdict


def test_the_reference_alone_has_nothing_to_compare():
    assert compare_with({"base": np.zeros((3, 4))}, "base") == {}


def test_one_seed_decides_nothing_and_says_so():
    scores = {name: x[:1] for name, x in binary_study(np.random.default_rng(0), effects=[0, 0.3, 0, 0, 0, 0]).items()}
    for one in compare_with(scores, "a0", margin=0.02).values():
        assert (one.verdict, one.p) == ("undecided", 1.0)
        assert one.low == -np.inf and one.high == np.inf
        assert "one seed" in one.note


def test_an_arm_of_one_seed_borrows_its_noise_and_says_so():
    scores = binary_study(np.random.default_rng(0), effects=[0, 0.0, 0, 0, 0, 0])
    scores["a1"] = scores["a1"][:1]
    found = compare_with(scores, "a0")
    assert "other arms" in found["a1"].note and found["a1"].seeds == 1
    assert found["a1"].high - found["a1"].low > 1.5 * (found["a2"].high - found["a2"].low)


def test_a_missing_seed_is_left_out_and_said():
    scores = binary_study(np.random.default_rng(0))
    scores["a1"][2] = np.nan
    scores["a2"] = scores["a2"][:3]
    found = compare_with(scores, "a0")
    rows = [0, 1, 3]
    expected = scores["a1"][rows].mean() - scores["a0"][rows].mean()
    assert found["a1"].difference == pytest.approx(expected)
    assert found["a1"].seeds == found["a2"].seeds == 3
    assert "missing" in found["a1"].note and "3 of" in found["a2"].note
    assert found["a3"].note == ""


def test_seeds_beyond_the_references_are_left_out_and_said():
    scores = binary_study(np.random.default_rng(0))
    scores["a0"] = scores["a0"][:3]
    found = compare_with(scores, "a0")
    assert found["a1"].seeds == 3 and "reference lacks" in found["a1"].note


def test_no_common_seed():
    scores = binary_study(np.random.default_rng(0), arms=3)
    scores["a1"][:] = np.nan
    found = compare_with(scores, "a0")
    assert np.isnan(found["a1"].difference) and found["a1"].verdict == "undecided" and "no seed" in found["a1"].note
    assert np.isfinite(found["a2"].low)


def test_constant_scores():
    zero, one = np.zeros((3, 50)), np.ones((3, 50))
    found = compare_with({"base": zero, "same": zero, "other": one}, "base", margin=0.001)
    # none right of 150 on both sides is no proof of a chance of exactly 0
    assert found["same"].difference == 0.0 and found["same"].p > 0.9
    assert found["same"].verdict == "undecided" and 0.005 < found["same"].high < 0.3
    # all wrong against all right, three times: noise over seeds was not seen, but it would have to be enormous
    assert found["other"].difference == 1.0 and found["other"].verdict == "better"


def test_constant_real_scores_have_no_noise_to_judge_by():
    found = compare_with({"base": np.full((3, 4), 0.5), "arm": np.full((3, 4), 0.7)}, "base")["arm"]
    assert found.verdict == "undecided" and found.low == -np.inf and "noise is unknown" in found.note


def test_an_identical_arm_does_not_disturb_the_others():
    scores = binary_study(np.random.default_rng(3))
    alone = compare_with(scores, "a0")
    beside = compare_with({**scores, "twin": scores["a0"]}, "a0")
    assert beside["twin"].difference == 0.0 and beside["twin"].p == 1.0
    assert beside["a1"].p == pytest.approx(alone["a1"].p)


@pytest.mark.parametrize(
    ("scores", "reference", "options", "said"),
    [
        ({"a": np.zeros((2, 3))}, "b", {}, "reference"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))}, "a", {}, "questions"),
        ({"a": np.zeros(3)}, "a", {}, "shape"),
        ({"a": np.zeros((0, 3))}, "a", {}, "empty"),
        ({"a": np.array([["x", "y"]])}, "a", {}, "numbers"),
        ({"a": np.array([[0.0, np.nan], [0.0, 1.0]])}, "a", {}, "NaN"),
        ({"a": np.array([[0.0, np.inf]])}, "a", {}, "infinite"),
        ({"a": np.zeros((2, 3))}, "a", {"alpha": 0.0}, "alpha"),
        ({"a": np.zeros((2, 3))}, "a", {"margin": -0.1}, "margin"),
    ],
)
def test_bad_input(scores, reference, options, said):
    with pytest.raises(ValueError, match=said):
        compare_with(scores, reference, **options)


def test_the_callers_scores_are_not_changed_and_the_result_repeats():
    scores = binary_study(np.random.default_rng(8))
    before = {name: x.copy() for name, x in scores.items()}
    assert compare_with(scores, "a0") == compare_with(scores, "a0")
    assert all(np.array_equal(before[name], x) for name, x in scores.items())


def test_the_rest_of_the_statistics_does_not_load_scipy():
    code = "import sys; from Verl.analysis import stats; print('scipy' in sys.modules, callable(stats.compare_with))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split() == ["False", "True"]
