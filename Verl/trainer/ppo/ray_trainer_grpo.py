"""GRPO, and the study's base line (n = 1); also verl's own estimators, by `algorithm.adv_estimator`."""

import torch

from Verl.trainer.ppo.core_algos_grpo import compute_grpo_outcome_advantage
from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.rollouts import Rollouts

ESTIMATORS = {"grpo": compute_grpo_outcome_advantage}


class RayTrainerGRPO(RayTrainer):
    """An estimator of ours by its name; any other name is one of verl's and goes to verl."""

    def advantages(self, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, rollouts: Rollouts):
        algorithm = self.config.algorithm
        if algorithm.adv_estimator not in ESTIMATORS:
            return None
        advantages, _ = ESTIMATORS[algorithm.adv_estimator](
            token_level_rewards,
            response_mask,
            rollouts.uids,
            norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
        )
        return advantages, {}
