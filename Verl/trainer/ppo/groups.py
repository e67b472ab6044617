"""What the estimators share: rewards per response, statistics per group, and the advantage copied to every token.

Shapes: S responses, T response tokens (right-padded), G groups (queries).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the entries of the estimators are read where torch is not loaded (estimators.py)
    import torch


@dataclass(frozen=True)
class GroupStatistics:
    """Per response: statistics of the pool of rewards that its group was given. All of shape (S,), float64."""

    count_S: torch.Tensor
    mean_S: torch.Tensor
    std_S: torch.Tensor  # unbiased
    constant_S: torch.Tensor  # whether all rewards of the pool are the same number


def outcome_rewards(token_level_rewards: torch.Tensor) -> torch.Tensor:
    """R_S: the sum of a response's token-level rewards, in float64.

    float64, because a float32 mean of equal rewards can miss them by one unit in the last place, which a division by
    (0 + epsilon) then turns into a visible advantage.
    """
    return token_level_rewards.sum(dim=-1).double()


def group_statistics(index: Sequence, pool_R: torch.Tensor, pool_index: Sequence) -> GroupStatistics:
    """Mean and unbiased std of the rewards in each response's pool.

    Args:
        index: (S,) group of each response.
        pool_R: (P,) rewards that the statistics are taken over.
        pool_index: (P,) group of each of them; every group of `index` must be there.

    Raises:
        ValueError: if a reward belongs to a group that has no response.
    """
    import torch

    groups, group_S = np.unique(np.asarray(index), return_inverse=True)
    position = np.searchsorted(groups, np.asarray(pool_index)).clip(max=len(groups) - 1)
    unknown = groups[position] != np.asarray(pool_index)
    if unknown.any():
        raise ValueError(f"rewards of the groups {set(np.asarray(pool_index)[unknown])} have no response to train")
    group_S, group_P = torch.from_numpy(group_S), torch.from_numpy(position)
    size = len(groups)
    count_G = torch.bincount(group_P, minlength=size).double()
    mean_G = torch.zeros(size, dtype=torch.float64).index_add_(0, group_P, pool_R) / count_G
    squares_G = torch.zeros(size, dtype=torch.float64).index_add_(0, group_P, (pool_R - mean_G[group_P]) ** 2)
    std_G = (squares_G / (count_G - 1).clamp(min=1)).sqrt()
    low_G = torch.full((size,), torch.inf, dtype=torch.float64).scatter_reduce_(0, group_P, pool_R, "amin")
    high_G = torch.full((size,), -torch.inf, dtype=torch.float64).scatter_reduce_(0, group_P, pool_R, "amax")
    return GroupStatistics(count_G[group_S], mean_G[group_S], std_G[group_S], (low_G == high_G)[group_S])


def batch_statistics(reward_S: torch.Tensor, response_mask: torch.Tensor) -> GroupStatistics:
    """The same over all responses of the step, whatever their query: one pool.

    Rows without a response token are no responses: verl fills a batch with them that a failed rollout left short.
    """
    real_S = response_mask.bool().any(dim=-1)
    one_pool = np.zeros(len(reward_S), dtype=int)
    return group_statistics(one_pool, reward_S[real_S], one_pool[: int(real_S.sum())])


def standardise(reward_S: torch.Tensor, pool: GroupStatistics, epsilon: float, divide_by_std: bool) -> torch.Tensor:
    """(R - mean) / (std + epsilon), or R - mean; R itself where the pool holds one value only (mean 0, std 1).

    A reward belongs to its own pool, so in a constant pool the result is exactly 0, also where the mean of equal
    numbers misses them in the last place.
    """
    centred_S = (reward_S - pool.mean_S).masked_fill(pool.constant_S, 0.0)
    advantage_S = centred_S / (pool.std_S + epsilon) if divide_by_std else centred_S
    return reward_S.where(pool.count_S == 1, advantage_S)


def to_tokens(advantage_S: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """(S, T) float32: a response's advantage at each of its tokens, 0 at padding. No gradient flows through it."""
    return advantage_S.detach().float().unsqueeze(-1) * response_mask
