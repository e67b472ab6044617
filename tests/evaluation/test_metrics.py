"""Metrics against values worked out by hand on planted responses, and their intervals."""

import numpy as np
import pytest

from Verl.analysis import stats
from Verl.evaluation import metrics as module
from Verl.evaluation.answers import RIGHT, voted_answer
from Verl.evaluation.metrics import all_metrics, pass_ks
from Verl.reward.score import score
from Verl.reward.sources import CHAIN_SUM, GSM8K, MATH


def responses(index, truth, texts, greedy=None):
    """Rows of one GSM8K question, scored by the real scorer."""
    rows = [(sample, False, text) for sample, text in enumerate(texts)]
    if greedy is not None:
        rows.append((0, True, greedy))
    return [
        {"data_source": GSM8K, "index": index, "sample": sample, "greedy": is_greedy, "text": text}
        | score(GSM8K, text, truth)
        for sample, is_greedy, text in rows
    ]


# Question 0, truth 18: two right in the format, one right without it, one wrong. Strict 1 0 0 1, flexible 1 1 0 1.
# Question 1, truth 7: all wrong, three agree on 5 in the format, one names no number. Format 1 1 1 0.
PLANTED = responses(0, "18", ["#### 18", "it is 18", "#### 4", "#### 18"], greedy="#### 18") + responses(
    1, "7", ["#### 5", "#### 5", "#### 5", "no idea"], greedy="7 it is"
)


def by_name(rows, temperature=1.0):
    return {(metric.name, metric.rule): metric for metric in all_metrics(rows, temperature)}


@pytest.mark.parametrize(
    ("name", "rule", "values"),
    [
        ("avg@4", "strict", [0.5, 0.0]),
        ("avg@4", "flexible", [0.75, 0.0]),
        ("avg@4", "format", [0.75, 0.75]),
        ("pass@2", "strict", [1 - 1 / 6, 0.0]),  # of the 6 pairs only (2nd, 3rd) holds no right answer
        ("pass@2", "flexible", [1.0, 0.0]),
        ("pass@4", "strict", [1.0, 0.0]),
        # strict answers of question 0: 18, none, 4, 18: 18 wins. Of question 1: 5 wins.
        ("maj@4", "strict", [1.0, 0.0]),
        ("maj@4", "flexible", [1.0, 0.0]),
        ("greedy", "strict", [1.0, 0.0]),
        ("greedy", "flexible", [1.0, 1.0]),
        ("greedy", "format", [1.0, 0.0]),
    ],
)
def test_values_by_question(name, rule, values):
    metric = by_name(PLANTED)[name, rule]
    assert metric.keys_Q == [(GSM8K, 0), (GSM8K, 1)]
    assert metric.values_Q == pytest.approx(values)
    assert metric.as_dict()["estimate"] == pytest.approx(np.mean(values))
    assert metric.as_dict()["questions"] == 2


def test_a_tie_in_the_vote_counts_half_and_unreadable_answers_do_not_vote():
    rows = responses(0, "18", ["#### 18", "#### 4", "hm", "hm"])
    assert by_name(rows)["maj@4", "strict"].values_Q == pytest.approx([0.5])


def test_wrong_majority_beats_a_right_minority():
    rows = responses(0, "18", ["#### 18", "#### 4", "#### 4", "#### 5"])
    assert by_name(rows)["maj@4", "strict"].values_Q == pytest.approx([0.0])


def test_format_is_not_voted_on():
    assert ("maj@4", "format") not in by_name(PLANTED)


def test_labels_say_what_the_number_is():
    labels = {key: metric.label for key, metric in by_name(PLANTED, temperature=0.7).items()}
    assert labels["avg@4", "strict"] == "avg@4: Pass@1, the mean of 4 samples at temperature 0.7, strict rule"
    assert labels["pass@2", "flexible"] == "pass@2, unbiased, from 4 samples at temperature 0.7, flexible rule"
    assert labels["maj@4", "strict"] == "maj@4, the majority of 4 samples at temperature 0.7, strict rule"
    assert labels["greedy", "format"] == "Greedy, one answer at temperature 0, format alone, right or wrong"
    one = by_name(responses(0, "18", ["#### 18"]))
    assert one["avg@1", "strict"].label == "Pass@1, one sample at temperature 1.0, strict rule"
    assert set(one) == {("avg@1", rule) for rule in ("strict", "flexible", "format")}


def test_interval_is_the_bootstrap_over_questions(monkeypatch):
    asked = []

    def spy(values):
        asked.append(list(values))
        return stats.Interval(0.1, 0.2, 0.3)

    monkeypatch.setattr(module.stats, "bootstrap_interval", spy)
    as_dict = by_name(PLANTED)["avg@4", "flexible"].as_dict()
    assert asked == [[0.75, 0.0]]
    assert (as_dict["estimate"], as_dict["low"], as_dict["high"]) == (0.1, 0.2, 0.3)


def test_pass_ks():
    assert [pass_ks(n) for n in (1, 2, 3, 4, 8, 10)] == [[], [2], [2, 3], [2, 4], [2, 4, 8], [2, 4, 8, 10]]


def test_math_has_a_lenient_rule_between_strict_and_flexible():
    rows = [
        {"data_source": MATH, "index": 0, "sample": sample, "greedy": False, "text": text} | score(MATH, text, r"5\%")
        for sample, text in enumerate([r"\boxed{5\%}", r"\boxed{5%}", r"\boxed{6}", "no idea"])
    ]
    found = {rule: float(by_name(rows)["avg@4", rule].values_Q[0]) for rule in ("strict", "lenient", "flexible")}
    assert found == {"strict": 0.25, "lenient": 0.5, "flexible": 0.5}
    assert ("maj@4", "lenient") in by_name(rows)
    assert "lenient" not in {rule for _, rule in by_name(PLANTED)}  # elsewhere it is the strict one
    old = [{**row, "lenient": None} for row in rows]  # an evaluation from before there was one
    assert "lenient" not in {rule for _, rule in by_name(old)} and ("avg@4", "strict") in by_name(old)


def test_questions_with_missing_samples_are_refused():
    with pytest.raises(ValueError, match="3 to 4 samples"):
        all_metrics(PLANTED[:4] + responses(1, "7", ["a", "b", "c"]), 1.0)


@pytest.mark.parametrize(
    ("source", "rule", "one", "other", "same"),
    [
        (GSM8K, "strict", "#### 5", "so #### 5", True),
        (GSM8K, "strict", "#### 5", "#### 5.0", False),  # the strict rule compares text
        (GSM8K, "flexible", "it is 5", "#### 5.0", True),
        (CHAIN_SUM, "strict", "#5", "1+4=5;#05", True),
        (CHAIN_SUM, "flexible", "5", "#5", True),
        (CHAIN_SUM, "strict", "#5", "#-5", False),
        (MATH, "strict", r"\boxed{\frac12}", r"\boxed{\dfrac{1}{2}}", True),
        (MATH, "flexible", r"\boxed{3}", r"\boxed{4}", False),
        (MATH, "strict", r"\boxed{5%}", r"\boxed{5\%}", False),  # verl drops the escaped sign only
        (MATH, "lenient", r"\boxed{5%}", r"\boxed{5\%}", True),
    ],
)
def test_wrong_answers_vote_together_where_the_rule_reads_them_alike(source, rule, one, other, same):
    votes = [voted_answer(source, text, rule, False, True) for text in (one, other)]
    assert None not in votes and (votes[0] == votes[1]) is same


@pytest.mark.parametrize("source", [GSM8K, CHAIN_SUM, MATH])
def test_no_answer_no_vote_and_right_ones_are_one(source):
    assert voted_answer(source, "I don't know", "strict", False, False) is None
    assert voted_answer(source, "I don't know", "flexible", False, False) is None
    assert voted_answer(source, "x", "flexible", True, False) is RIGHT
