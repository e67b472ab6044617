"""Two evaluations: paired by question, and the test that fits the outcomes."""

import numpy as np
import pytest

from Verl.analysis import stats
from Verl.errors import UserError
from Verl.evaluation import compare as module
from Verl.evaluation.compare import Other, compare
from Verl.evaluation.metrics import Metric
from Verl.reward.sources import GSM8K


def metric(values, name="avg@1", indices=None, rule="strict"):
    keys = [(GSM8K, index) for index in (indices or range(len(values)))]
    return Metric(name, rule, f"{name} {rule}", keys, np.array(values, dtype=float))


def test_one_answer_each_is_the_exact_mcnemar_test():
    # Five questions only the first gets right, none only the second: p = 2 (1/2)^5.
    (found,) = compare([metric([1, 1, 1, 1, 1, 0, 1])], [metric([0, 0, 0, 0, 0, 0, 1])])
    assert found.test == "exact McNemar" and found.p == pytest.approx(2 / 32)
    assert found.this == pytest.approx(6 / 7) and found.other == pytest.approx(1 / 7)
    assert found.difference == pytest.approx(5 / 7) and found.low <= found.difference <= found.high


def test_greedy_is_tested_alike():
    (found,) = compare([metric([1, 0, 1], "greedy")], [metric([1, 1, 0], "greedy")])
    assert found.test == "exact McNemar" and found.p == 1.0


def test_averages_are_tested_with_the_paired_bootstrap(monkeypatch):
    asked = []

    def spy(a, b):
        asked.append((list(a), list(b)))
        return stats.Difference(0.25, 0.1, 0.4, 0.03)

    monkeypatch.setattr(module.stats, "paired_bootstrap", spy)
    (found,) = compare([metric([0.5, 1.0], "avg@2")], [metric([0.5, 0.5], "avg@2")])
    assert asked == [([0.5, 1.0], [0.5, 0.5])]
    assert (found.test, found.difference, found.low, found.high, found.p) == ("paired bootstrap", 0.25, 0.1, 0.4, 0.03)


def test_questions_are_paired_by_key_and_only_common_ones_count():
    this = metric([1, 0, 1, 0], indices=[1, 2, 3, 4])
    other = metric([0, 1, 0, 1], indices=[9, 3, 2, 1])  # on 1, 2, 3: 1, 0, 1, as the first
    (found,) = compare([this], [other])
    assert found.questions == 3 and found.difference == 0.0 and found.p == 1.0


def test_metrics_that_only_one_has_are_left_out():
    ours = [metric([1, 0]), metric([1, 0], "greedy"), metric([1, 0], rule="format")]
    assert [(one.name, one.rule) for one in compare(ours, [metric([1, 1], rule="format")])] == [("avg@1", "format")]


def other(truths, **changes):
    rows = [
        {"data_source": GSM8K, "index": i, "ground_truth": truth, "greedy": False, "text": ""}
        | dict.fromkeys(("strict", "flexible", "format"), 0.0)
        for i, truth in truths.items()
    ]
    decoding = {"samples": 1, "temperature": 1.0, "max_prompt_length": 512, "max_response_length": 12, **changes}
    return Other("before", {"settings": decoding}, rows)


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (other({0: "1", 1: "2"}, temperature=0.5), "--temperature 0.5, this one with 1.0"),
        (other({0: "1", 1: "2"}, max_response_length=99), "--max-response-length 99"),
        (other({5: "1", 0: "1"}), "shares 1 question"),
        (other({0: "1", 1: "3"}), "another true answer for question 1"),
    ],
)
def test_evaluations_that_cannot_be_compared_are_refused(make_settings, before, sentence):
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")):
        before.check(make_settings(), {(GSM8K, 0): "1", (GSM8K, 1): "2"})


def test_a_comparable_evaluation_passes(make_settings):
    other({0: "1", 1: "2", 7: "5"}).check(make_settings(), {(GSM8K, 0): "1", (GSM8K, 1): "2"})
