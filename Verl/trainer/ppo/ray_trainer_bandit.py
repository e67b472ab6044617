"""The bandit arms: estimators that may draw extra rollouts, which feed the baseline and are never trained on."""

import torch

from Verl.trainer.ppo.estimators import estimators, extra_responses
from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.rollouts import Rollouts


class RayTrainerBandit(RayTrainer):
    """The extra rollouts are asked for in the same call as the trained ones, and leave before the first gradient pass."""

    def extra_rollouts(self) -> int:
        return extra_responses(self.config)

    def advantages(self, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, rollouts: Rollouts):
        algorithm, extra = self.config.algorithm, rollouts.extra
        advantages = estimators()[algorithm.adv_estimator].advantages(
            token_level_rewards=token_level_rewards,
            token_level_rewards_extra=torch.tensor(extra.rewards, dtype=torch.float64) if extra else None,
            response_mask=response_mask,
            index=rollouts.uids,
            index_extra=extra.uids if extra else [],
            norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
        )
        return advantages, {}
