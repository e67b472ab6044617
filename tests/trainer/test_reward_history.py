"""The reward history: windows, shared entries, trackers, and that a checkpoint brings all of it back."""

import json

import pytest

from Verl.trainer.ppo.reward_history import RewardHistory

A, B = ("gsm8k", 1), ("MATH", 1)  # the same index in two data sets is two queries


def test_first_in_first_out():
    history = RewardHistory(window_size=3)
    for step, reward in enumerate([1, 0, 0, 1, 1]):
        history.add([A], [reward], step)
    assert history.windows([A, B]) == [[0, 1, 1], []]
    assert history.seen([A, B]) == [5, 0]
    assert history.staleness([A], step=4) == pytest.approx((2 + 1 + 0) / 3)


def test_a_duplicated_query_shares_its_window():
    history = RewardHistory(window_size=8)
    history.add([A, B, A], [1, 0, 0], step=0)
    assert history.windows([A, B, A]) == [[1, 0], [0], [1, 0]]


def test_more_rollouts_than_the_window_holds():
    history = RewardHistory(window_size=2)
    history.add([A] * 4, [1, 0, 0, 0], step=0)
    assert history.windows([A]) == [[0, 0]]


def test_trackers_by_hand():
    history = RewardHistory(window_size=2, decay=0.5)
    for step, reward in enumerate([1, 0, 1]):
        history.add([A], [reward], step)
    # ema: 1, then 0.5, then 0.75. beta: alpha 1 -> 1.5 -> 0.75 -> 1.375, beta 1 -> 0.5 -> 1.25 -> 0.625.
    assert history.values([A], "ema", 1) == [0.75]
    assert history.values([A], "beta", 1) == [pytest.approx(1.375 / 2.0)]
    assert history.values([A, B], "ema", 4) == [None, None]


def test_a_round_is_one_update_of_the_trackers():
    """Two rounds of two rewards: forgetting is between them, and the order within one does not matter."""
    one, other = RewardHistory(window_size=4, decay=0.5), RewardHistory(window_size=4, decay=0.5)
    for step, rewards in enumerate([[1, 0], [1, 1]]):
        one.add([A, A], rewards, step)
        other.add([A, B, A], [rewards[1], 0.5, rewards[0]], step)
    # ema: 1/2, then 1/4 + 1/2. beta: alpha 1 -> 1/2 + 1 -> 3/4 + 2, beta 1 -> 1/2 + 1 -> 3/4.
    assert one.values([A], "ema", 1) == other.values([A], "ema", 1) == [0.75]
    assert one.values([A], "beta", 1) == other.values([A], "beta", 1) == [pytest.approx(2.75 / 3.5)]
    assert one.windows([A]) == [[1, 0, 1, 1]] and one.seen([A]) == [4]


def test_a_checkpoint_is_the_whole_state():
    history = RewardHistory(window_size=2)
    history.add([A, B, A, A], [1, 0.5, 0, 1], step=3)
    state = json.loads(json.dumps(history.state_dict()))  # as it goes through the checkpoint's file
    again = RewardHistory(window_size=2)
    again.load_state_dict(state)
    for this in (history, again):
        this.add([A, B], [1, 1], step=9)
    assert again.windows([A, B]) == history.windows([A, B]) == [[1, 1], [0.5, 1]]
    assert again.state_dict() == history.state_dict()
    assert again.staleness([A], 9) == history.staleness([A], 9) == 3.0


def test_another_window_is_refused():
    state = RewardHistory(window_size=2).state_dict()
    with pytest.raises(ValueError, match="window_size=2, this run asks for 4"):
        RewardHistory(window_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match="at least 1"):
        RewardHistory(window_size=0)
