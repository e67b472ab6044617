"""When the update's own log-probabilities may stand for the old ones, and under which names they are logged."""

from types import SimpleNamespace

import pytest

from Verl.adapter import own_log_probs
from Verl.study import shipped
from Verl.trainer.ppo.ray_trainer_base import RayTrainer


def updates_once(*overrides: str) -> bool:
    config = shipped.prepare("run_grpo_0032_8_tiny_arith.sh", overrides).config
    return RayTrainer._updates_once(SimpleNamespace(config=config))


def test_the_study_updates_once():
    assert updates_once()


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",  # the second update sees another policy
        "actor_rollout_ref.actor.ppo_epochs=2",
        "actor_rollout_ref.old_log_probs=recompute",
        "actor_rollout_ref.actor.policy_loss.loss_mode=sapo",
        "algorithm.rollout_correction.rollout_is=token",  # compares them with the rollout's before the update
        "algorithm.rollout_correction.bypass_mode=true",  # takes the rollout's
        "algorithm.adv_estimator=rloo",  # verl's code reads the old log-probabilities before the update
    ],
)
def test_elsewhere_the_old_ones_are_computed_beforehand(override):
    assert not updates_once(override)


def test_our_metrics_get_verls_names_back():
    metrics = {f"actor/{own_log_probs.PREFIX}training/gap": 1.0, "actor/grad_norm": 2.0}
    own_log_probs.rename(metrics)
    assert metrics == {"training/gap": 1.0, "actor/grad_norm": 2.0}
