"""The replay arms of the study (arXiv 2601.22532): the baseline is what the query earned in earlier rounds.

Only rewards are replayed, never old responses. The history itself is in reward_history.py; here it is only read, one
window per response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from Verl.trainer.ppo.estimators import WINDOW, Estimator
from Verl.trainer.ppo.groups import outcome_rewards, to_tokens

if TYPE_CHECKING:
    import torch


def advantage_bound(window: int) -> float:
    """W / sqrt(W + 1): the largest standardised value that a number can have in a sample of W + 1 that contains it
    (Samuelson 1968, "How deviant can you be?").

    A reward that is in its own window of W can't exceed (W - 1) / sqrt(W), which is less: the bound never touches the
    published formula there. It only binds where the reward is not in the window (more rollouts than the window holds,
    or `include_current: false`) and the window is nearly constant: (R - mean) / epsilon would be a million.
    """
    return window / np.sqrt(window + 1)


def compute_asyttgrpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    histories: Sequence[Sequence[float]],
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
    min_history: int = 2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A = (R - mean(window)) / (std(window) + epsilon), std unbiased; |A| <= advantage_bound(len(window)) when divided.

    A window with fewer than `min_history` rewards (never fewer than 2: one value has no spread) is no baseline yet:
    A = R. So a first visit trains as the base line does.

    Args:
        token_level_rewards: (S, T).
        response_mask: (S, T).
        histories: S sequences: the rewards in the window of each response's query, as it is to be read.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    reward_S = outcome_rewards(token_level_rewards)
    if len(histories) != len(reward_S):
        raise ValueError(f"there are {len(reward_S)} responses but {len(histories)} histories")
    advantage_S = reward_S.clone()
    for row, history in enumerate(histories):
        # Through float32, as the rewards came: 0.1 must be the same number in the window and in the batch.
        window_W = np.asarray(history, dtype=np.float32).astype(np.float64)
        if len(window_W) < max(min_history, 2):
            continue
        constant = window_W.min() == window_W.max()
        difference = float(reward_S[row]) - (window_W[0] if constant else window_W.mean())
        if norm_adv_by_std_in_grpo:
            bound = advantage_bound(len(window_W))
            std = 0.0 if constant else window_W.std(ddof=1)
            difference = float(np.clip(difference / (std + epsilon), -bound, bound))
        advantage_S[row] = difference
    advantages = to_tokens(advantage_S, response_mask)
    return advantages, advantages


def compute_banditpo_outcome_advantage(
    response_mask: torch.Tensor, histories: Sequence[Sequence[float]], config: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A = mean(window): the query's recent success as the signal itself; 0 where the window is still empty.

    Args:
        response_mask: (S, T).
        histories: S sequences, see above.

    Returns:
        advantages and returns, both (S, T) and equal.
    """
    import torch

    means = [float(np.mean(np.asarray(history, dtype=np.float64))) if len(history) else 0.0 for history in histories]
    advantages = to_tokens(torch.tensor(means, dtype=torch.float64), response_mask)
    return advantages, advantages


def compute_tracked_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    baselines: Sequence[float | None],
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A = R - v, v the value that a tracker (ema, beta) holds for the query; A = R where it has none yet.

    With `norm_adv_by_std_in_grpo` the batch's advantages are standardised over the batch, as SPO does
    (arXiv 2509.13232: a single response has no group to be standardised in); a batch of equal advantages gives 0.
    """
    import torch

    reward_S = outcome_rewards(token_level_rewards)
    value_S = torch.tensor([0.0 if value is None else value for value in baselines], dtype=torch.float64)
    advantage_S = reward_S - value_S
    if norm_adv_by_std_in_grpo and len(advantage_S) > 1:
        spread = advantage_S.std()
        advantage_S = (advantage_S - advantage_S.mean()) / (spread + epsilon) if spread > 1e-9 else advantage_S * 0
    advantages = to_tokens(advantage_S, response_mask)
    return advantages, advantages


ENTRIES = (
    Estimator(
        "asyttgrpo",
        compute_asyttgrpo_outcome_advantage,
        entry="replay",
        label="replay",
        title="GRPO against the query's own past rewards (Asy-TTGRPO)",
        signal="an advantage against its query's last {window} rewards",
        size=WINDOW,
        divides_by_std=True,
    ),
    Estimator(
        "banditpo",
        compute_banditpo_outcome_advantage,
        entry="replay",
        label="Bandit-PO",
        title="The mean of the query's past rewards as the signal (BanditPO)",
        signal="the mean of its query's last {window} rewards as the signal",
        size=WINDOW,
        requires={"algorithm.replay.baseline": ("window", "is the window's mean")},
    ),
)
