"""GRPO, and the study's base line (n = 1); also verl's own estimators, by `algorithm.adv_estimator`."""

import torch

from Verl.trainer.ppo.estimators import estimators
from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.rollouts import Rollouts


class RayTrainerGRPO(RayTrainer):
    """An estimator whose formula is ours by that formula; one of verl's own by verl's code."""

    def advantages(self, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, rollouts: Rollouts):
        algorithm = self.config.algorithm
        estimator = estimators()[algorithm.adv_estimator]
        if estimator.formula is None:
            return None
        advantages = estimator.advantages(
            token_level_rewards=token_level_rewards,
            response_mask=response_mask,
            index=rollouts.uids,
            norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
        )
        return advantages, {}
