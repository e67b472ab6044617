"""The bandit arms of the study (arXiv 2601.22532): the baseline from extra rollouts (onerpo),
and the group's average as the signal itself (arpo)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from Verl.trainer.ppo.estimators import EXTRA, Estimator
from Verl.trainer.ppo.groups import group_statistics, outcome_rewards, standardise, to_tokens

if TYPE_CHECKING:
    import torch


def compute_onerpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    token_level_rewards_extra: torch.Tensor | None,
    response_mask: torch.Tensor,
    index: np.ndarray,
    index_extra: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = (R_ij - mean_i) / (std_i + epsilon), mean and unbiased std over the n trained and m extra rewards of i.

    With n = 1 and m = 7 a query's single response gets the advantage that it would get among eight, at the gradient
    cost of one. At the edges: no extra rewards give GRPO; n + m = 1 gives A = R; a query whose extra samples are
    missing (a failed rollout) uses those that are there.

    Args:
        token_level_rewards: (S, T) rewards of the trained responses.
        token_level_rewards_extra: (E, T') or (E,) rewards of the extra responses; None or no rows: none were drawn.
        response_mask: (S, T).
        index: (S,) query of each trained response.
        index_extra: (E,) query of each extra response.

    Returns:
        advantages and returns, both (S, T) and equal.

    Raises:
        ValueError: if an extra reward belongs to a query without a trained response.
    """
    reward_S = outcome_rewards(token_level_rewards)
    pool_R, pool_index = reward_S, np.asarray(index)
    if token_level_rewards_extra is not None and len(token_level_rewards_extra):
        import torch

        extra = token_level_rewards_extra
        pool_R = torch.cat([reward_S, outcome_rewards(extra) if extra.ndim == 2 else extra.double()])
        pool_index = np.concatenate([pool_index, np.asarray(index_extra)])
    pool = group_statistics(index, pool_R, pool_index)
    advantages = to_tokens(standardise(reward_S, pool, epsilon, norm_adv_by_std_in_grpo), response_mask)
    return advantages, advantages


def compute_arpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = mean_j R_ij: every response of a query gets the query's average reward. n = 1 gives A = R.

    `epsilon` and `norm_adv_by_std_in_grpo` are there for the common call and have no effect.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    reward_S = outcome_rewards(token_level_rewards)
    advantages = to_tokens(group_statistics(index, reward_S, index).mean_S, response_mask)
    return advantages, advantages


ENTRIES = (
    Estimator(
        "onerpo",
        compute_onerpo_outcome_advantage,
        entry="bandit",
        label="One-RPO",
        title="One-RPO (mean and std from extra rollouts)",
        signal="an advantage whose mean and std also count {extra} extra rollouts that are never trained on",
        size=EXTRA,
        divides_by_std=True,
    ),
    Estimator(
        "arpo",
        compute_arpo_outcome_advantage,
        entry="bandit",
        label="ARPO",
        title="The group's mean reward as the signal (ARPO)",
        signal="the mean reward of its query's rollouts as the signal",
    ),
)
