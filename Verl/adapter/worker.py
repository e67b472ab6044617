"""verl's training worker with what this system needs of it on every device.

With one update per round the old policy is the policy that is updated: where the trainer has written no old
log-probabilities, the update takes them from its own forward pass (own_log_probs.py), which saves a pass over the batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from Verl.adapter.interface import replaced
from Verl.adapter.own_log_probs import ROWS, Collector
from Verl.seeds import derive


class PolicyWorker(ActorRolloutRefWorker):
    """Actor, reference and rollout adapter in one process."""

    _own_metrics: dict[str, float]

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        if self.config.model.lora_rank:  # peft draws A from torch's stream, which nothing has seeded
            torch.manual_seed(derive(self.config.rollout.seed, "lora"))
        super().init_model()

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict:
        """verl's update; where it takes the old log-probabilities from itself, `own_metrics` has what is logged of them."""
        if "old_log_probs" in data:
            return super().update_actor(data)
        collector = Collector()
        with self._collecting(data, collector):
            output = super().update_actor(data)
        self._own_metrics = collector.metrics(data, self.config.actor)
        return output

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def own_metrics(self) -> dict[str, float]:
        """What verl's trainer logs of the log-probabilities that the last update took from itself."""
        return self._own_metrics

    @contextmanager
    def _collecting(self, data: TensorDict, collector: Collector) -> Iterator[None]:
        """Around an update: its micro batches leave their log-probabilities and entropies with the collector."""
        engine, settings = self.actor.engine, self.config.actor
        in_loss = settings.entropy_coeff != 0 or settings.calculate_entropy
        entropy_of = engine.compute_entropy_from_logits
        data[ROWS] = torch.arange(len(data))
        tu.assign_non_tensor(data, calculate_entropy=True)
        self.actor.set_loss_fn(collector.around(self.loss_fn, keeps_entropy=in_loss))
        try:
            with replaced(engine, compute_entropy_from_logits=entropy_of if in_loss else torch.no_grad()(entropy_of)):
                yield
        finally:
            self.actor.set_loss_fn(self.loss_fn)
