"""What is subtracted from a reward, and nothing else: no estimator here divides by a std.

With those of the other modules (grpo without its division, verl's rloo, onerpo and the replay arms without theirs) they
make the factor `reward_baseline` of study.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from Verl.trainer.ppo.estimators import Estimator
from Verl.trainer.ppo.groups import batch_statistics, group_statistics, outcome_rewards, standardise, to_tokens

if TYPE_CHECKING:
    import torch


def compute_reinforce_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = R_ij: no baseline (REINFORCE, Williams 1992). With one response per query, the study's base line.

    A wrong answer, whose reward is 0, has no policy gradient; its tokens still count in the mean that the loss is.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    advantages = to_tokens(outcome_rewards(token_level_rewards), response_mask)
    return advantages, advantages


def compute_batchmean_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = R_ij - mean over all responses of the step, whatever their query.

    The baseline of REINFORCE++ (arXiv 2501.03262), which also divides by the std of the batch and takes both over tokens
    (verl: `reinforce_plus_plus`, whose advantages are these over their std where all responses are equally long). At the
    edges: a step of one response gives A = R; a step of equal rewards exactly 0.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    reward_S = outcome_rewards(token_level_rewards)
    pool = batch_statistics(reward_S, response_mask)
    advantages = to_tokens(standardise(reward_S, pool, epsilon=0.0, divide_by_std=False), response_mask)
    return advantages, advantages


def compute_jamesstein_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """A_ij = R_ij - [(1 - c_i) mean_{j' != j} R_ij' + c_i mean_{k != i} mu_k], mu_k the mean reward of query k.

    The James-Stein baseline of arXiv 2511.03710, by the plug-in formula of its project page (zanette-labs, JSPO): of B
    queries with n_k responses each,

        c_i = (B - 1) / B * v / (v + s),   v = mean_{k != i} var_k / n_k,   s = mean_{k != i} (mu_k - mean_{k != i} mu_k)^2,

    var_k unbiased. So the group's mean counts the less, the more it owes to chance. No reward is in its own baseline, and
    none of its query's is in its c: the gradient stays unbiased. (Their code leaves (B - 1) / B out.) Unlike grpo's, groups
    of equal rewards train, where other queries' rewards vary.

    At the edges: one query in the step, or v = s = 0, gives c = 0, which is leave-one-out (rloo); a query with one response
    has A = R; a step of equal rewards gives exactly 0.

    Args:
        token_level_rewards: (S, T).
        response_mask: (S, T); rows without a token are no responses.
        index: (S,) the query of each response, in any order.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    reward_S = outcome_rewards(token_level_rewards)
    pool = group_statistics(index, reward_S, index)
    # Of equal numbers exactly their value: a mean may miss it in the last place.
    mean_S = reward_S.where(pool.constant_S, pool.mean_S)
    others_S = (pool.count_S * mean_S - reward_S) / (pool.count_S - 1).clamp(min=1)
    own_S = reward_S.where(pool.constant_S, others_S)
    real_S = response_mask.bool().any(dim=-1).numpy()
    _, first_G, group_S = np.unique(np.asarray(index), return_index=True, return_inverse=True)
    variance_S = (pool.std_S**2 / pool.count_S).masked_fill(pool.constant_S, 0.0)
    share_G, elsewhere_G = _shrinkage(mean_S[first_G], variance_S[first_G], pool.count_S[first_G], real_S[first_G])
    share_S, elsewhere_S = share_G[group_S], elsewhere_G[group_S]
    centred_S = reward_S - ((1 - share_S) * own_S + share_S * elsewhere_S)
    # With c = 0 nothing of other queries is left, not even a rounding.
    centred_S = (reward_S - own_S).where(share_S == 0, centred_S)
    advantages = to_tokens(reward_S.where(pool.count_S == 1, centred_S), response_mask)
    return advantages, advantages


def _shrinkage(
    mean_G: torch.Tensor, variance_G: torch.Tensor, count_G: torch.Tensor, real_G: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per query: (c, the mean over the other queries' means). Both 0 where there is no other query.

    Args:
        mean_G: (G,) of each query's rewards.
        variance_G: (G,) of that mean: var / n, 0 where n is 1, which then does not count.
        real_G: (G,) whether it is a query at all.
    """
    import torch

    real_G = torch.from_numpy(real_G)
    among_GG = (real_G.unsqueeze(0) & ~torch.eye(len(mean_G), dtype=torch.bool)).double()  # row: the queries beside it
    others_G = among_GG.sum(dim=1)
    elsewhere_G = among_GG @ mean_G / others_G.clamp(min=1)
    several_GG = among_GG * (count_G > 1)
    noise_G = several_GG @ variance_G / several_GG.sum(dim=1).clamp(min=1)
    # By the differences of two means each, so that equal ones give exactly 0: the mean square is half of theirs.
    square_GG = (mean_G.unsqueeze(0) - mean_G.unsqueeze(1)) ** 2 * (real_G.unsqueeze(0) & real_G.unsqueeze(1))
    spread_G = (square_GG.sum() - 2 * square_GG.sum(dim=1)).clamp(min=0) / (2 * others_G.clamp(min=1) ** 2)
    whole_G = noise_G + spread_G
    share_G = (others_G / (others_G + 1)) * noise_G / whole_G.masked_fill(whole_G == 0, 1.0)
    return share_G, elsewhere_G


ENTRIES = (
    Estimator(
        "reinforce",
        compute_reinforce_outcome_advantage,
        label="REINFORCE",
        title="REINFORCE (no baseline)",
        signal="the reward itself as the signal",
    ),
    Estimator(
        "batchmean",
        compute_batchmean_outcome_advantage,
        label="batch mean",
        title="REINFORCE against the batch's mean",
        signal="the reward minus the mean of all responses of the step as the signal",
    ),
    Estimator(
        "jamesstein",
        compute_jamesstein_outcome_advantage,
        label="James-Stein",
        title="REINFORCE against the group's mean, shrunk towards the other queries' (James-Stein)",
        signal="the reward minus the mean of its query's other responses, shrunk towards the other queries', as the signal",
        needs_several="it takes the variance of a query's own rewards",
    ),
)
