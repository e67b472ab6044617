"""The bandit arms: estimators that may draw extra rollouts, which feed the baseline and are never trained on."""

from typing import Any

import torch

from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.rollouts import Rollouts


class RayTrainerBandit(RayTrainer):
    """The extra rollouts are asked for in the same call as the trained ones, and leave before the first gradient pass."""

    def estimator_inputs(self, rollouts: Rollouts) -> dict[str, Any]:
        extra = rollouts.extra
        return {
            "token_level_rewards_extra": torch.tensor(extra.rewards, dtype=torch.float64) if extra else None,
            "index_extra": extra.uids if extra else [],
        }
