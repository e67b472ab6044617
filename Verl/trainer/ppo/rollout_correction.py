"""verl's rollout correction (`algorithm.rollout_correction`) for our own estimators too.

The responses were drawn by the rollout engine under log mu, the update starts from log pi_old of the training engine; the
two differ by their precision and kernels. verl (verl/trainer/ppo/rollout_corr_helper.py, 0.9.1) computes from the
difference importance weights, which the loss multiplies with (`rollout_is`), and a mask of tokens or responses that are left
out of it (`rollout_rs`). verl applies both within its own `_compute_advantage`; here its function is called on the same
fields where the estimator is ours. As in verl, rejected tokens stay in the denominator of a token mean.

In bypass mode (`bypass_mode`) the rollout's log-probabilities are the old ones, and verl's loss `bypass_mode` corrects in
itself. Its older trainer chooses that loss; the V1 trainer of 0.9.1 only exchanges the log-probabilities, so that loss_type
and rollout_rs would be read by nothing: `choose_loss` does what the older one does.
"""

import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.protocol import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.workers.utils.padding import response_to_nested

from Verl.trainer.ppo.conditions import BYPASSES, corrects_rollouts
from Verl.trainer.ppo.loss_mask import LossMask

_WEIGHTS = "rollout_is_weights"


def choose_loss(config: DictConfig) -> None:
    """In bypass mode, tells the workers to use verl's loss for it. Before the workers are made."""
    if not BYPASSES(config):
        return
    policy_loss = config.actor_rollout_ref.actor.policy_loss
    with open_dict(policy_loss):
        policy_loss.loss_mode = "bypass_mode"
        policy_loss.rollout_correction = {"_target_": "verl.trainer.config.RolloutCorrectionConfig"}
        policy_loss.rollout_correction.update(config.algorithm.rollout_correction)


def correct(batch: KVBatchMeta, config: DictConfig, mask: LossMask) -> dict[str, float]:
    """Writes the importance weights into the queue, rejects tokens in `mask`, and returns verl's metrics of both.

    The weights are pi_old / mu, per token or per response, at most rollout_is_threshold (or 0 outside its two bounds).
    Without a correction nothing is done.
    """
    if not corrects_rollouts(config):
        return {}
    fields = ["old_log_probs", "rollout_log_probs"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    padded = TensorDict({**data, "response_mask": mask.original}, batch_size=len(batch)).to_padded_tensor()
    done, metrics = compute_rollout_correction_and_add_to_batch(DataProto(batch=padded), config.algorithm.rollout_correction)
    mask.reject(done.batch["response_mask"])
    if _WEIGHTS in done.batch:
        weights = TensorDict({_WEIGHTS: response_to_nested(done.batch[_WEIGHTS], mask.original)}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=weights)
    return metrics


def take_over(batch: KVBatchMeta, config: DictConfig, mask: LossMask) -> None:
    """What verl's own `_compute_advantage` has rejected, into `mask`; the queue gets the original mask back."""
    if not corrects_rollouts(config):
        return
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
    mask.reject(data["response_mask"].to_padded_tensor(padding=0))
    original = TensorDict({"response_mask": mask.original}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=original)
