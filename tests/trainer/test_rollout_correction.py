"""verl's importance weights and rejections for our estimators, from log-probabilities written by hand."""

import math

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict

from Verl.adapter.nested import nested
from Verl.cpu.local_queue import installed
from Verl.trainer.ppo import rollout_correction
from Verl.trainer.ppo.loss_mask import LossMask
from Verl.trainer.settings import compose

KEY = "algorithm.rollout_correction"
# pi_old / mu per token: 2, 1, 0.5 in the first response, 4, 0.25 in the second.
RATIOS = [[2.0, 1.0, 0.5], [4.0, 0.25]]


def corrected(*overrides: str):
    """(importance weights or None, the mask, metrics) of the two responses above."""
    config = compose("grpo", overrides)
    with installed():
        rollout = [torch.full((len(ratios),), -2.0) for ratios in RATIOS]
        old = [torch.tensor([math.log(x) - 2.0 for x in ratios]) for ratios in RATIOS]
        mask = LossMask.of(nested([torch.ones(len(ratios), dtype=torch.long) for ratios in RATIOS]))
        fields = {"old_log_probs": nested(old), "rollout_log_probs": nested(rollout), "response_mask": mask.original}
        batch = tq.kv_batch_put(keys=["a", "b"], partition_id="train", fields=TensorDict(fields, batch_size=2), tags=[{}, {}])
        metrics = rollout_correction.correct(batch, config, mask)
        data = tq.kv_batch_get(keys=["a", "b"], partition_id="train")
        weights = [row.tolist() for row in data["rollout_is_weights"].unbind()] if "rollout_is_weights" in data else None
        assert [row.tolist() for row in data["response_mask"].unbind()] == [[1, 1, 1], [1, 1]]  # for everybody else
    return weights, [row.tolist() for row in mask.in_loss], mask, metrics


def test_token_weights_are_cut_at_the_threshold():
    weights, in_loss, mask, metrics = corrected(f"{KEY}.rollout_is=token", f"{KEY}.rollout_is_threshold=3.0")
    assert weights[0] == pytest.approx([2.0, 1.0, 0.5]) and weights[1] == pytest.approx([3.0, 0.25])
    assert in_loss == [[1, 1, 1], [1, 1]] and not mask.left_out.any()
    assert metrics["rollout_corr/rollout_is_mean"] == pytest.approx((2 + 1 + 0.5 + 3 + 0.25) / 5)


def test_sequence_weights_are_the_products():
    weights, *_ = corrected(f"{KEY}.rollout_is=sequence")
    assert weights[0] == pytest.approx([1.0] * 3) and weights[1] == pytest.approx([1.0] * 2)


def test_two_bounds_zero_what_lies_outside():
    weights, *_ = corrected(f"{KEY}.rollout_is=token", f"{KEY}.rollout_is_threshold='0.4_3.0'")
    assert weights[0] == pytest.approx([2.0, 1.0, 0.5]) and weights[1] == [0.0, 0.0]


def test_rejected_tokens_and_responses():
    weights, in_loss, mask, _ = corrected(f"{KEY}.rollout_rs=token_k1", f"{KEY}.rollout_rs_threshold='0.4_2.5'")
    assert weights is None and in_loss == [[1, 1, 1], [0, 0]]
    assert [row.tolist() for row in mask.counted] == [[1, 1, 1], [1, 1]]  # they stay in a token mean's denominator
    assert mask.left_out.tolist() == [False, True]
    _, in_loss, *_ = corrected(f"{KEY}.rollout_rs=seq_mean_k2", f"{KEY}.rollout_rs_threshold=0.5")
    # 0.5 log^2: mean of (0.24, 0, 0.24) and of (0.96, 0.96)
    assert in_loss == [[1, 1, 1], [0, 0]]


def test_bypass_mode_chooses_verl_s_loss_for_it():
    from verl.utils.config import omega_conf_to_dataclass

    config = compose("grpo", [f"{KEY}.bypass_mode=true", f"{KEY}.loss_type=reinforce", f"{KEY}.rollout_is=token"])
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    config.actor_rollout_ref.actor.policy_loss = OmegaConf.create(config.actor_rollout_ref.actor.policy_loss)
    rollout_correction.choose_loss(config)
    loss = omega_conf_to_dataclass(config.actor_rollout_ref.actor.policy_loss)
    assert loss.loss_mode == "bypass_mode"
    assert (loss.rollout_correction.loss_type, loss.rollout_correction.rollout_is) == ("reinforce", "token")
    plain = compose("grpo", [])
    rollout_correction.choose_loss(plain)
    assert plain.actor_rollout_ref.actor.policy_loss.loss_mode == "vanilla"
