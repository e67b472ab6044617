"""GRPO, and the study's base line (n = 1); also verl's own estimators, by `algorithm.adv_estimator`."""

from Verl.trainer.ppo.ray_trainer_base import RayTrainer


class RayTrainerGRPO(RayTrainer):
    """What all algorithms share, and nothing else: an estimator that needs its group's rewards only."""
