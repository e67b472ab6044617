"""A trainer on a CPU: verl's steps in front of which this class stands, with our worker and without what need not be done.

`on_cpu` puts it in front of one of the study's trainers (Verl/trainer/ppo/ray_trainer_*.py), which know nothing of it.
"""

import ray
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.metric import reduce_metrics

from Verl.cpu.batch_fields import FOR_THE_UPDATE
from Verl.cpu.batched_loop import without_load_balancer
from Verl.cpu.local_queue import Ends, LocalQueue
from Verl.cpu.own_log_probs import REFERENCE_SECONDS
from Verl.cpu.worker import CPUWorker
from Verl.trainer.conditions import BYPASSES, SEVERAL_UPDATES, corrects_rollouts
from Verl.trainer.ppo.estimators import ours


def on_cpu(trainer_class: type[PPOTrainerSync], queue: LocalQueue | None) -> type[PPOTrainerSync]:
    """The same trainer on a CPU. Args: queue: where this process keeps the rollouts; None: in the transfer queue's own."""
    return type(trainer_class.__name__, (CPUSteps, trainer_class), {"queue": queue})


def updates_once(config: DictConfig) -> bool:
    """Whether the policy that is updated is still the one that the round began with, and nothing else asks for its
    log-probabilities beforehand: then the update's own forward pass gives them (own_log_probs.py)."""
    actor = config.actor_rollout_ref.actor
    return (
        config.actor_rollout_ref.old_log_probs == "auto"
        and not SEVERAL_UPDATES(config)
        and actor.use_dynamic_bsz  # verl's own passes, which fixed micro batches go through, want them beforehand
        and not corrects_rollouts(config)
        and not BYPASSES(config)
        and actor.policy_loss.loss_mode == "vanilla"
        and config.algorithm.adv_estimator in ours()
        and not config.algorithm.use_kl_in_reward
    )


class CPUSteps(PPOTrainerSync):
    """The overridden methods are verl's (verl/trainer/ppo/v1/trainer_base.py)."""

    queue: LocalQueue | None = None

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.role_worker_mapping = {role: ray.remote(CPUWorker) for role in self.role_worker_mapping}

    def _setup(self) -> None:
        with without_load_balancer(self.config):
            super()._setup()
        for group in ("actor_rollout_wg", "ref_policy_wg"):
            if self.queue is not None and hasattr(self, group):
                setattr(self, group, Ends(getattr(self, group), self.queue))

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if updates_once(self.config) else super()._compute_old_log_prob(batch, metrics)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if updates_once(self.config) else super()._compute_ref_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not updates_once(self.config):
            return super()._update_actor(batch, metrics)
        if self.loss_mask.changed:
            fields = TensorDict({"metric_mask": self.loss_mask.original}, batch_size=len(batch))
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        batch.fields = list(FOR_THE_UPDATE)
        batch = super()._update_actor(batch, metrics)
        own = reduce_metrics(_joined(self.actor_rollout_wg.own_metrics()))
        # The reference was computed in the update's call, which verl's timer has yet to add to the time of updates.
        self.timing_raw["ref"] = own.pop(REFERENCE_SECONDS)
        self.timing_raw["update_actor"] = self.timing_raw.get("update_actor", 0.0) - self.timing_raw["ref"]
        metrics.update(own)
        return batch


def _joined(parts: list[dict[str, float]]) -> dict[str, list[float]]:
    """Each metric over the processes."""
    return {name: [part[name] for part in parts] for name in parts[0]}
