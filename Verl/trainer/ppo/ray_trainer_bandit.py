"""The bandit arms: onerpo draws extra rollouts for its baseline, arpo trains on the group's average."""

import torch

from Verl.trainer.ppo.core_algos_bandit import compute_arpo_outcome_advantage, compute_onerpo_outcome_advantage
from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.rollouts import Rollouts


class RayTrainerBandit(RayTrainer):
    """The extra rollouts are asked for in the same call as the trained ones, and leave before the first gradient pass."""

    def extra_rollouts(self) -> int:
        return self.config.data.extra_sampling_size if self.config.algorithm.adv_estimator == "onerpo" else 0

    def advantages(self, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, rollouts: Rollouts):
        divide = self.config.algorithm.norm_adv_by_std_in_grpo
        if self.config.algorithm.adv_estimator == "arpo":
            return compute_arpo_outcome_advantage(token_level_rewards, response_mask, rollouts.uids)[0], {}
        extra = rollouts.extra
        advantages, _ = compute_onerpo_outcome_advantage(
            token_level_rewards,
            torch.tensor(extra.rewards, dtype=torch.float64) if extra else None,
            response_mask,
            rollouts.uids,
            extra.uids if extra else [],
            norm_adv_by_std_in_grpo=divide,
        )
        return advantages, {}
