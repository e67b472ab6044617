"""Lite PPO's normalisation: the group's mean, the batch's std (Liu et al. 2025, "Tricks or Traps?", arXiv 2508.08221)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from Verl.trainer.ppo.estimators import Estimator
from Verl.trainer.ppo.groups import batch_statistics, group_statistics, outcome_rewards, standardise, to_tokens

if TYPE_CHECKING:
    import torch


def compute_litepo_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = (R_ij - mean_j R_ij) / (std of all rewards of the step + epsilon), std unbiased.

    As the authors' framework has it (alibaba/ROLL, `reward_norm` with norm_mean_type=group, norm_std_type=batch): the std is
    of the rewards themselves, not of what is left when their groups' means are off. So every query is divided by the same
    number, where GRPO divides a query whose answers are nearly all alike by a small one. At the edges: one response per
    query gives A = R, as grpo; a group whose rewards are all equal exactly 0. (Lite PPO's other half, the mean over all
    tokens, is verl's default aggregation.)

    Args:
        token_level_rewards: (S, T).
        response_mask: (S, T); rows without a token are no responses.
        index: (S,) the query of each response, in any order.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    reward_S = outcome_rewards(token_level_rewards)
    group = group_statistics(index, reward_S, index)
    centred_S = standardise(reward_S, group, epsilon=0.0, divide_by_std=False)
    scaled_S = centred_S / (batch_statistics(reward_S, response_mask).std_S + epsilon)
    advantages = to_tokens(reward_S.where(group.count_S == 1, scaled_S), response_mask)
    return advantages, advantages


ENTRIES = (
    Estimator(
        "litepo",
        compute_litepo_outcome_advantage,
        label="Lite PPO",
        title="The group's mean over the batch's std (Lite PPO)",
        signal="the reward minus the group's mean, over the std of all rewards of the step, as the signal",
    ),
)
