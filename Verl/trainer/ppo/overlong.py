"""The soft overlong penalty of DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13) on the rewards that train.

    penalty(L) = min(-(L - (max_resp_len - len)) / len * penalty_factor, 0)

for a response of L tokens: 0 up to max_resp_len - len, from there on linear, -penalty_factor at max_resp_len. Keys and formula
are those of verl's DAPO reward manager (verl 0.9.1, verl/experimental/reward_loop/reward_manager/dapo.py), in float32 as
there; a missing max_resp_len is data.max_response_length. The penalty is added where a step's rewards are read, not in the
reward manager: strict, flexible and format scores and every evaluation stay as they are.
"""

from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig

from Verl.trainer.ppo.conditions import penalises_length
from Verl.trainer.ppo.rollouts import Rollouts


@dataclass(frozen=True)
class Overlong:
    """`reward.reward_kwargs.overlong_buffer_cfg`, checked by Verl/trainer/feature_checks.py."""

    buffer: int  # tokens before the limit within which the penalty grows
    factor: float
    limit: int
    log: bool = True

    @classmethod
    def of(cls, config: DictConfig) -> "Overlong | None":
        """None: no penalty."""
        if not penalises_length(config):
            return None
        kwargs = config.reward.reward_kwargs
        settings = kwargs.overlong_buffer_cfg
        limit = kwargs.get("max_resp_len") or config.data.max_response_length
        return cls(settings.len, settings.penalty_factor, limit, settings.get("log", True))

    def penalties(self, lengths: list[int]) -> torch.Tensor:
        """(S,) float32, at most 0."""
        exceed_S = torch.tensor(lengths) - (self.limit - self.buffer)
        return (-exceed_S / self.buffer * self.factor).clamp(max=0)

    def penalised(self, rollouts: Rollouts) -> Rollouts:
        """The same rollouts with the penalty in their rewards, and beside them."""
        penalty_S = self.penalties(rollouts.response_lengths)
        reward_S = torch.tensor(rollouts.rewards, dtype=torch.float32) + penalty_S
        return replace(rollouts, rewards=reward_S.tolist(), penalties=penalty_S.tolist())

    def metrics(self, rollouts: Rollouts) -> dict[str, float]:
        """Share of the trained responses that are penalised, and the mean penalty; nothing with `log=false`."""
        if not self.log:
            return {}
        penalty_S = torch.tensor(rollouts.penalties, dtype=torch.float64)
        return {
            "train/overlong": float((penalty_S < 0).double().mean()),
            "train/overlong_penalty_mean": float(penalty_S.mean()),
        }
