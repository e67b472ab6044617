"""When the old log-probabilities may be the update's own: only where the pass that takes them is the one that runs."""

from types import SimpleNamespace

import pytest

from Verl.study import shipped
from Verl.trainer.ppo.ray_trainer_base import RayTrainer

ACTOR = "actor_rollout_ref.actor"
FIXED = [f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
         "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
         "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4"]  # fmt: skip


@pytest.mark.parametrize(
    "typed, expected",
    [
        ([], True),
        (["actor_rollout_ref.old_log_probs=recompute"], False),
        ([f"{ACTOR}.ppo_epochs=2"], False),
        ([f"{ACTOR}.ppo_mini_batch_size=8"], False),
        (FIXED, False),  # such a run ended with a KeyError
        (["algorithm.rollout_correction.rollout_is=token"], False),
    ],
)
def test_updates_once(typed, expected):
    config = shipped.prepare("run_grpo_0032_8_tiny_arith.sh", typed).config
    assert RayTrainer._updates_once(SimpleNamespace(config=config)) is expected
