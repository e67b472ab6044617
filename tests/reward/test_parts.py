"""The parts of a reward: what a dictionary holds beside its score, and where each kind of value goes."""

import math

import numpy as np
import pytest

from Verl.reward.parts import columns, gathered, joined, means, reward_and_parts


def test_numbers_stay_numbers_and_everything_else_becomes_text():
    reward, parts = reward_and_parts(
        {"score": True, "z": np.float32(0.5), "length": 7, "right": False, "why": "no box", "seen": [1, "b"], "none": None}
    )
    assert reward == 1.0
    assert parts == {"length": 7.0, "right": 0.0, "seen": '[1, "b"]', "why": "no box", "z": 0.5}
    assert list(parts) == sorted(parts) and reward_and_parts(0.25) == (0.25, {})


@pytest.mark.parametrize("result, said", [
    ({"reward": 1.0}, "without 'score'"),
    ({"score": float("nan")}, "returned nan"),
    ({"score": 1.0, "failures": 2}, "is a metric of ours: rename it"),
    ({"score": 1.0, "two words": 2}, "letters, digits"),
    ({"score": 1.0, 3: 2}, "letters, digits"),
    ({"score": 1.0, **{f"p{i}": i for i in range(33)}}, "33 parts"),
])  # fmt: skip
def test_what_can_not_be_a_part_is_said(result, said):
    with pytest.raises(ValueError, match=said):
        reward_and_parts(result)


def test_means_are_over_the_responses_that_have_the_part():
    parts = gathered([{"a": 1.0, "t": "x"}, {"a": 0.0, "b": math.nan}, {"b": math.inf}, {}])
    assert means(parts) == {"reward/a": 0.5}
    assert columns(parts)["reward/a"] == [1.0, 0.0, None, None]
    assert columns(parts)["reward_text/t"] == ["x", None, None, None] and "reward/t" not in columns(parts)
    assert joined({"a": [1.0]}, 1, {"b": ["x", None]}, 2) == {"a": [1.0, None, None], "b": [None, "x", None]}


def test_a_part_of_both_kinds_has_a_column_of_each():
    assert columns({"a": [1.0, "x"]}) == {"reward/a": [1.0, None], "reward_text/a": [None, "x"]}
