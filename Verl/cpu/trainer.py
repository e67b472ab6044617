"""A trainer on a CPU: verl's steps in front of which this class stands, with our worker and without what need not be done.

`on_cpu` puts it in front of one of the study's trainers (Verl/trainer/ppo/ray_trainer_*.py), which know nothing of it.
"""

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from Verl.cpu.batch_fields import FOR_THE_UPDATE
from Verl.cpu.batched_loop import without_load_balancer
from Verl.cpu.local_queue import Ends, LocalQueue
from Verl.cpu.worker import REFERENCE_SECONDS, CPUWorker
from Verl.trainer.ppo.conditions import updates_once


def on_cpu(trainer_class: type[PPOTrainerSync], queue: LocalQueue | None) -> type[PPOTrainerSync]:
    """The same trainer on a CPU. Args: queue: where this process keeps the rollouts; None: in the transfer queue's own."""
    return type(trainer_class.__name__, (CPUSteps, trainer_class), {"queue": queue})


class CPUSteps(PPOTrainerSync):
    """The overridden methods are verl's (verl/trainer/ppo/v1/trainer_base.py)."""

    queue: LocalQueue | None = None
    worker_class = CPUWorker

    def _setup(self) -> None:
        with without_load_balancer(self.config):
            super()._setup()
        for group in ("actor_rollout_wg", "ref_policy_wg"):
            if self.queue is not None and hasattr(self, group):
                setattr(self, group, Ends(getattr(self, group), self.queue))

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if updates_once(self.config) else super()._compute_ref_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not updates_once(self.config):
            return super()._update_actor(batch, metrics)
        batch.fields = list(FOR_THE_UPDATE)
        batch = super()._update_actor(batch, metrics)
        # The reference was computed in the update's call, which verl's timer has yet to add to the time of updates.
        self.timing_raw["ref"] = metrics.pop(REFERENCE_SECONDS)
        self.timing_raw["update_actor"] = self.timing_raw.get("update_actor", 0.0) - self.timing_raw["ref"]
        return batch
