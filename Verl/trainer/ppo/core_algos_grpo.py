"""GRPO: a response is compared with the other responses to its query (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from Verl.trainer.ppo.estimators import Estimator
from Verl.trainer.ppo.groups import group_statistics, outcome_rewards, standardise, to_tokens

if TYPE_CHECKING:
    import torch


def compute_grpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = (R_ij - mean_j R_ij) / (std_j R_ij + epsilon), std unbiased, the same at every token of response j.

    At the edges: one response per query gives A = R (mean 0, std 1), which is the study's base line; a group whose
    rewards are all equal gives exactly 0.

    Args:
        token_level_rewards: (S, T) rewards per token; their sum is the outcome reward R.
        response_mask: (S, T) 1 at response tokens, 0 at padding.
        index: (S,) the query of each response, in any order.
        epsilon: keeps the division finite.
        norm_adv_by_std_in_grpo: False leaves the division out (Dr.GRPO, arXiv 2503.20783).
        config: unused; verl hands it to every estimator.

    Returns:
        advantages and returns, both (S, T) and equal: there is no discount within a response.
    """
    reward_S = outcome_rewards(token_level_rewards)
    pool = group_statistics(index, reward_S, index)
    advantages = to_tokens(standardise(reward_S, pool, epsilon, norm_adv_by_std_in_grpo), response_mask)
    return advantages, advantages


ENTRIES = (
    Estimator(
        "grpo",
        compute_grpo_outcome_advantage,
        label="GRPO",
        signal="the reward minus the group's mean, over its std, as the signal",
        divides_by_std=True,
    ),
)
