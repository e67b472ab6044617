"""When the old log-probabilities may be the update's own: only where the pass that takes them is the one that runs."""

import pytest

from Verl.study import shipped
from Verl.trainer.ppo.conditions import updates_once

ACTOR = "actor_rollout_ref.actor"
FIXED = [f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
         "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
         "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4"]  # fmt: skip


@pytest.mark.parametrize(
    "typed, expected",
    [
        ([], True),
        (["actor_rollout_ref.old_log_probs=recompute"], False),
        ([f"{ACTOR}.ppo_epochs=2"], False),  # the second update sees another policy
        ([f"{ACTOR}.ppo_mini_batch_size=8"], False),
        (FIXED, True),
        (["trainer.device=cuda"], True),
        ([f"{ACTOR}.policy_loss.loss_mode=sapo"], False),
        (["algorithm.rollout_correction.rollout_is=token"], False),  # compares them with the rollout's before the update
        (["algorithm.rollout_correction.bypass_mode=true"], False),  # takes the rollout's
        (["algorithm.adv_estimator=rloo"], False),  # verl's code reads them before the update
    ],
)
def test_updates_once(typed, expected):
    config = shipped.prepare("run_grpo_0032_8_tiny_arith.sh", typed).config
    assert updates_once(config) is expected
