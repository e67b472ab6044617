"""Every estimator against values computed by hand, at its edges, and against verl's own where it has one."""

import numpy as np
import pytest
import torch

from Verl.trainer.ppo.core_algos_bandit import compute_arpo_outcome_advantage, compute_onerpo_outcome_advantage
from Verl.trainer.ppo.core_algos_grpo import compute_grpo_outcome_advantage
from Verl.trainer.ppo.core_algos_replay import (
    advantage_bound,
    compute_asyttgrpo_outcome_advantage,
    compute_banditpo_outcome_advantage,
    compute_tracked_outcome_advantage,
)

EPS = 1e-6


def batch(rewards, lengths=None, width=5):
    """Token-level rewards (the reward at the last token) and the mask of responses of the given lengths."""
    lengths = lengths or [3] * len(rewards)
    mask = torch.zeros(len(rewards), width, dtype=torch.int64)
    tokens = torch.zeros(len(rewards), width)
    for row, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        mask[row, :length] = 1
        tokens[row, length - 1] = reward
    return tokens, mask


def per_response(advantages, mask):
    """One value per response, after checking that it stands at every response token and nowhere else."""
    values = [advantages[row][mask[row] == 1] for row in range(len(mask))]
    assert all(torch.all(v == v[0]) for v in values)
    assert torch.all(advantages[mask == 0] == 0)
    return [float(v[0]) for v in values]


def grpo(rewards, index, **kwargs):
    tokens, mask = batch(rewards)
    advantages, returns = compute_grpo_outcome_advantage(tokens, mask, np.array(index, dtype=object), **kwargs)
    assert torch.equal(advantages, returns)
    return per_response(advantages, mask)


# ---- grpo -------------------------------------------------------------------------------------------------------

# Group a: 1, 0, 0, 1: mean 1/2, unbiased variance (4 x 1/4) / 3 = 1/3, so A = +-(1/2) / sqrt(1/3) = +-0.8660.
# Group b: 1, 0, 0: mean 1/3, variance (4/9 + 1/9 + 1/9) / 2 = 1/3: A = (2/3) / 0.57735 = 1.1547 and -0.57735.
GRPO_TABLE = [
    ([1, 0, 0, 1], "aaaa", [0.866024, -0.866024, -0.866024, 0.866024]),
    ([1, 0, 0], "bbb", [1.154699, -0.577349, -0.577349]),
    ([1], "a", [1.0]),  # n = 1: the base line
    ([0], "a", [0.0]),
    ([0.25], "a", [0.25]),
    ([1, 1, 1], "aaa", [0.0, 0.0, 0.0]),  # constant group
    ([0, 0], "aa", [0.0, 0.0]),
    ([1, 0, 1, 1, 0, 0], "abbaab", [0.577349, -0.577349, 1.154699, 0.577349, -1.154699, -0.577349]),  # interleaved
    ([2.5, -1.5], "aa", [0.707107, -0.707107]),  # mean 0.5, std sqrt(8) = 2.8284: 2 / 2.8284
]


@pytest.mark.parametrize("rewards, index, expected", GRPO_TABLE)
def test_grpo_by_hand(rewards, index, expected):
    assert grpo(rewards, list(index)) == pytest.approx(expected, abs=2e-6)


def test_grpo_without_division_is_dr_grpo():
    assert grpo([1, 0, 0, 0], list("aaaa"), norm_adv_by_std_in_grpo=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_a_constant_group_of_awkward_numbers_is_exactly_zero():
    # 0.1 can't be written in binary: its float32 mean over 3 or 7 misses it, and 1e-8 / (1e-8 + 1e-6) is not small.
    for count in (2, 3, 7, 11):
        assert grpo([0.1] * count, ["a"] * count) == [0.0] * count


def test_grpo_equals_verls_own():
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage as verls

    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 8):
        rewards = torch.rand(12 * n, generator=generator).round(decimals=1).tolist()
        index = np.array([f"q{row % 12}" for row in range(12 * n)], dtype=object)
        lengths = torch.randint(1, 6, (12 * n,), generator=generator).tolist()
        for divide in (True, False):
            ours = compute_grpo_outcome_advantage(*batch(rewards, lengths), index, norm_adv_by_std_in_grpo=divide)[0]
            theirs = verls(*batch(rewards, lengths), index, norm_adv_by_std_in_grpo=divide)[0]
            assert torch.allclose(ours, theirs, atol=2e-5), n


# ---- onerpo -----------------------------------------------------------------------------------------------------


def onerpo(rewards, index, extra, index_extra, **kwargs):
    tokens, mask = batch(rewards)
    tokens_extra = batch(extra, width=7)[0] if extra else None
    advantages, _ = compute_onerpo_outcome_advantage(
        tokens, tokens_extra, mask, np.array(index, dtype=object), np.array(index_extra, dtype=object), **kwargs
    )
    return per_response(advantages, mask)


def test_onerpo_takes_mean_and_std_over_trained_and_extra():
    # Query a: trained 1, extra 0 0 0: the group of grpo's 1 0 0 0: mean 1/4, variance (9/16 + 3/16) / 3 = 1/4, A = 1.5.
    # Query b: trained 0, extra 1 1 0: mean 1/2, std 0.57735, A = -0.8660.
    got = onerpo([1, 0], list("ab"), [0, 1, 0, 1, 0, 0], list("ababab"))
    assert got == pytest.approx([1.5, -0.866024], abs=5e-6)


def test_onerpo_without_extra_is_grpo():
    for rewards, index, expected in GRPO_TABLE:
        assert onerpo(rewards, list(index), [], []) == pytest.approx(expected, abs=2e-6)


def test_onerpo_equals_grpo_over_the_whole_pool():
    whole = grpo([1, 0, 1, 1, 0, 1, 0, 0], ["a"] * 8)
    for trained in range(8):
        rewards = [1, 0, 1, 1, 0, 1, 0, 0]
        extra = rewards[:trained] + rewards[trained + 1 :]
        assert onerpo([rewards[trained]], ["a"], extra, ["a"] * 7) == pytest.approx([whole[trained]], abs=1e-6)


def test_onerpo_with_a_missing_extra_sample_uses_the_rest():
    # b lost its two extra rollouts: it falls back to A = R; a keeps its own.
    assert onerpo([1, 1], list("ab"), [0, 0], list("aa")) == pytest.approx([1.154699, 1.0], abs=5e-6)


def test_onerpo_constant_pool_and_unknown_groups():
    assert onerpo([1], ["a"], [1, 1, 1], ["a"] * 3) == [0.0]
    with pytest.raises(ValueError, match="no response"):
        onerpo([1], ["a"], [0], ["z"])


# ---- arpo -------------------------------------------------------------------------------------------------------


def test_arpo_is_the_groups_average():
    tokens, mask = batch([1, 0, 0, 1, 1])
    advantages, _ = compute_arpo_outcome_advantage(tokens, mask, np.array(list("aaabc"), dtype=object))
    assert per_response(advantages, mask) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0, 1.0])


# ---- replay -----------------------------------------------------------------------------------------------------


def asyttgrpo(rewards, histories, **kwargs):
    tokens, mask = batch(rewards)
    return per_response(compute_asyttgrpo_outcome_advantage(tokens, mask, histories, **kwargs)[0], mask)


def test_asyttgrpo_by_hand():
    # First visit: A = R. Window 0 1: mean 1/2, std 0.7071: A = 0.7071. Window 0 0 0 1: mean 1/4, std 1/2: A = 1.5.
    got = asyttgrpo([1, 0, 1, 1, 0], [[1], [0], [0, 1], [0, 0, 0, 1], [1, 0]])
    assert got == pytest.approx([1.0, 0.0, 0.707106, 1.499997, -0.707106], abs=5e-6)


def test_asyttgrpo_constant_window_with_its_own_reward_is_zero():
    assert asyttgrpo([1, 0, 0.1], [[1] * 8, [0] * 8, [0.1] * 7]) == [0.0, 0.0, 0.0]


def test_asyttgrpo_is_bounded_where_the_reward_fell_out_of_its_window():
    # n > window_size: a success whose window holds only the eight failures after it. The formula gives 1 / 1e-6.
    bound = advantage_bound(8)
    assert bound == pytest.approx(8 / 3)
    assert asyttgrpo([1, 0], [[0] * 8, [1] * 8]) == pytest.approx([bound, -bound])
    nearly = [0.0] * 7 + [1e-4]
    assert asyttgrpo([1.0], [nearly]) == pytest.approx([bound])


def test_the_bound_never_touches_a_reward_in_its_own_window():
    generator = np.random.default_rng(0)
    for _ in range(300):
        window = generator.random(generator.integers(2, 12)).round(2).tolist()
        z = (window[-1] - np.mean(window)) / (np.std(window, ddof=1) + EPS)
        assert asyttgrpo([window[-1]], [window]) == pytest.approx([z], abs=1e-4)


def test_min_history_and_no_division():
    assert asyttgrpo([1, 1], [[0, 1], [0, 0, 1]], min_history=3) == pytest.approx([1.0, 1.154699], abs=5e-6)
    assert asyttgrpo([1], [[0, 0, 1, 1]], norm_adv_by_std_in_grpo=False) == pytest.approx([0.5])
    assert asyttgrpo([1], [[]]) == [1.0]


def test_histories_must_fit_the_batch():
    with pytest.raises(ValueError, match="1 responses but 2 histories"):
        asyttgrpo([1], [[1], [0]])


def test_banditpo_is_the_windows_mean():
    _, mask = batch([0, 0, 0])
    got = per_response(compute_banditpo_outcome_advantage(mask, [[1], [0, 1, 1, 0], []])[0], mask)
    assert got == pytest.approx([1.0, 0.5, 0.0])


def test_tracked_baselines():
    tokens, mask = batch([1, 0, 1])
    plain = compute_tracked_outcome_advantage(tokens, mask, [0.25, 0.25, None], norm_adv_by_std_in_grpo=False)[0]
    assert per_response(plain, mask) == pytest.approx([0.75, -0.25, 1.0])
    # Standardised over the batch: 0.75 -0.25 1.0 has mean 0.5 and std 0.661438.
    scaled = compute_tracked_outcome_advantage(tokens, mask, [0.25, 0.25, None])[0]
    assert per_response(scaled, mask) == pytest.approx([0.377964, -1.133891, 0.755928], abs=1e-5)
    equal = compute_tracked_outcome_advantage(*batch([1, 1]), [0.5, 0.5])[0]
    assert torch.all(equal == 0)


# ---- the equivalence class of the study ------------------------------------------------------------------------


def test_with_one_rollout_every_arm_is_the_raw_reward():
    rewards, index = [1, 0, 0.5, 1], list("abcd")
    tokens, mask = batch(rewards)
    assert grpo(rewards, index) == rewards
    assert onerpo(rewards, index, [], []) == rewards
    assert per_response(compute_arpo_outcome_advantage(tokens, mask, np.array(index))[0], mask) == rewards
    assert asyttgrpo(rewards, [[r] for r in rewards]) == rewards
    assert per_response(compute_banditpo_outcome_advantage(mask, [[r] for r in rewards])[0], mask) == rewards
