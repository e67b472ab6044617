"""The baselines without a std, and Lite PPO's std: by hand, at their edges, and against verl's own."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_core_algos import batch, grpo, per_response
from verl.trainer.ppo import core_algos as verls

from Verl.trainer.ppo.core_algos_baselines import (
    compute_batchmean_outcome_advantage,
    compute_jamesstein_outcome_advantage,
    compute_reinforce_outcome_advantage,
)
from Verl.trainer.ppo.core_algos_litepo import compute_litepo_outcome_advantage

OURS = {
    "reinforce": lambda tokens, mask, index: compute_reinforce_outcome_advantage(tokens, mask),
    "batchmean": lambda tokens, mask, index: compute_batchmean_outcome_advantage(tokens, mask),
    "jamesstein": compute_jamesstein_outcome_advantage,
    "litepo": compute_litepo_outcome_advantage,
    "rloo": verls.compute_rloo_outcome_advantage,  # verl's own, which an arm of the factor takes
}
THIRD = 1 / 3

# batchmean: 1 0 0 1 1 has the mean 3/5.
# rloo: 1 against the mean 0 of the other three; 0 against their 1/3. A query with one response: verl takes A = R.
# litepo: all six have the mean 2/3 and the variance (4/9 + 8/9) / 5, std 0.516398; a is +-1/2 from its mean, b is constant.
# jamesstein, a: 1 0, b: 1 1, c: 0 0. Means 1/2, 1, 0; var / n: (1/2) / 2 = 1/4, 0, 0.
#   a: the others have v = 0, so c = 0: leave-one-out, 1 - 0 and 0 - 1.
#   b: v = 1/8, means 1/2 and 0 around 1/4, s = 1/16, c = 2/3 x (1/8) / (3/16) = 4/9: 1 - (5/9 + 4/9 x 1/4) = 1/3.
#   c: the same around 3/4: 0 - (0 + 4/9 x 3/4) = -1/3.
TABLE = [
    ("reinforce", [1, 0, 0.5], "aab", [1, 0, 0.5]),
    ("batchmean", [1, 0, 0, 1, 1], "aabbc", [0.4, -0.6, -0.6, 0.4, 0.4]),
    ("batchmean", [1], "a", [1.0]),  # a step of one response
    ("batchmean", [0.1, 0.1, 0.1], "aab", [0.0] * 3),
    ("rloo", [1, 0, 0, 0], "aaaa", [1.0, -THIRD, -THIRD, -THIRD]),
    ("rloo", [1, 1, 0], "aab", [0.0, 0.0, 0.0]),
    ("rloo", [1, 1], "ab", [1.0, 1.0]),
    ("litepo", [1, 0, 0, 1, 1, 1], "aaaabb", [0.968244, -0.968244, -0.968244, 0.968244, 0.0, 0.0]),
    ("litepo", [1, 0], "ab", [1.0, 0.0]),  # n = 1: the base line
    ("litepo", [0.1] * 7, "aaabbbb", [0.0] * 7),
    ("jamesstein", [1, 0, 1, 1, 0, 0], "aabbcc", [1.0, -1.0, THIRD, THIRD, -THIRD, -THIRD]),
    ("jamesstein", [0, 1, 0, 1, 1, 0], "cacbba", [-THIRD, 1.0, -THIRD, THIRD, THIRD, -1.0]),  # interleaved
    ("jamesstein", [1, 0, 0, 0], "aaaa", [1.0, -THIRD, -THIRD, -THIRD]),  # one query: leave-one-out
    ("jamesstein", [1, 1, 0, 0], "aabb", [0.0] * 4),  # v = 0: so too
    ("jamesstein", [0.1] * 6, "aaabbb", [0.0] * 6),
    ("jamesstein", [1, 0], "ab", [1.0, 0.0]),  # n = 1 (refused in a config; a query may lose its other rollouts)
]  # fmt: skip


def advantages(name, rewards, index):
    tokens, mask = batch(rewards)
    return per_response(OURS[name](tokens, mask, np.array(list(index), dtype=object))[0], mask)


@pytest.mark.parametrize("name, rewards, index, expected", TABLE)
def test_by_hand(name, rewards, index, expected):
    got = advantages(name, rewards, index)
    assert got == pytest.approx(expected, abs=2e-6)
    assert [value for value, wanted in zip(got, expected) if wanted == 0] == [0.0] * expected.count(0.0)  # exactly


def many(seed=0, queries=9, n=4):
    """Rewards of queries of different difficulty, some of one kind only."""
    generator = np.random.default_rng(seed)
    chance = generator.choice([0.0, 0.2, 0.5, 0.9, 1.0], queries)
    rewards = (generator.random((queries, n)) < chance[:, None]).astype(float)
    return rewards, [f"q{query}" for query in range(queries) for _ in range(n)]


def test_jamesstein_is_the_formula_of_its_page():
    """Written again from the page with loops, over the (queries, rollouts) table that its authors have."""
    for seed in range(20):
        rewards, index = many(seed)
        (B, n), expected = rewards.shape, []
        for i in range(B):
            others = np.delete(rewards, i, axis=0)
            v, s = (others.var(axis=1, ddof=1) / n).mean(), others.mean(axis=1).var()
            c = (B - 1) / B * v / (v + s) if v + s else 0.0
            for j in range(n):
                expected.append(rewards[i, j] - (1 - c) * np.delete(rewards[i], j).mean() - c * others.mean())
        assert advantages("jamesstein", rewards.flatten(), index) == pytest.approx(expected, abs=1e-6)


def test_no_reward_is_in_its_own_jamesstein_baseline():
    rewards, index = many()
    before = np.array(advantages("jamesstein", rewards.flatten(), index))
    for row, reward in enumerate(rewards.flatten()):
        other = rewards.flatten()
        other[row] = 1 - reward
        after = np.array(advantages("jamesstein", other, index))
        assert other[row] - after[row] == pytest.approx(reward - before[row], abs=1e-6)


def test_batchmean_over_its_std_is_verl_s_reinforce_plus_plus():
    rewards, index = many()
    tokens, mask = batch(rewards.flatten(), width=3)
    config = SimpleNamespace(gamma=1.0)
    theirs = per_response(verls.compute_reinforce_plus_plus_outcome_advantage(tokens, mask, config=config)[0], mask)
    ours = np.array(advantages("batchmean", rewards.flatten(), index))
    tokens_each, responses = 3, len(ours)
    std = np.sqrt((ours**2).sum() * tokens_each / (tokens_each * responses - 1))  # verl's: unbiased, over all tokens
    assert theirs == pytest.approx(ours / std, abs=1e-5)


def test_rloo_is_the_group_s_mean_but_for_its_scale():
    rewards, index = many(n=8)
    ours = np.array(grpo(rewards.flatten(), index, norm_adv_by_std_in_grpo=False))
    assert advantages("rloo", rewards.flatten(), index) == pytest.approx(ours * 8 / 7, abs=1e-6)


def test_litepo_of_one_query_is_grpo():
    assert advantages("litepo", [1, 0, 0, 1, 0], "aaaaa") == pytest.approx(grpo([1, 0, 0, 1, 0], list("aaaaa")), abs=1e-6)


@pytest.mark.parametrize("name", ["batchmean", "litepo", "jamesstein"])
def test_a_row_that_verl_fills_a_batch_with_is_no_response(name):
    rewards, index = many()
    whole = advantages(name, rewards.flatten(), index)
    tokens, mask = batch([*rewards.flatten(), 0.0, 0.0])
    mask[-2:] = 0
    got = OURS[name](tokens, mask, np.array([*index, "padding-36", "padding-37"], dtype=object))[0]
    assert got[:-2, 0].tolist() == pytest.approx(whole, abs=1e-7) and torch.all(got[-2:] == 0)
