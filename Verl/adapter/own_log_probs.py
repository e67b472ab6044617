"""Old log-probabilities that are the update's own.

PPO's ratio compares the policy with the one that the round began with. With one update per round these are the same
weights, so a pass that computes the old log-probabilities beforehand computes what the update's forward pass computes
again. Where it is left out (`updates_once` in Verl/trainer/ppo/conditions.py says when), the update takes the old ones from its
own forward pass: the ratio is 1 exactly, and its gradient that of the policy. What verl 0.9.1 logs from the pass that is left
out (verl/trainer/ppo/v1/trainer_base.py, `_compute_old_log_prob`: entropy, and the gap to the rollout's own
log-probabilities) is computed here, by verl's own functions.

On every device: what it costs is the entropy of each micro batch, taken without a gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils import tensordict_utils as tu
from verl.utils.debug.metrics import calculate_debug_metrics
from verl.workers.utils.padding import response_from_nested

from Verl.adapter.nested import nested, rows_of

ROWS = "rows_of_the_batch"


class Collector:
    """What one update's micro batches saw, put together for the metrics of the whole batch."""

    def __init__(self) -> None:
        self.log_probs: dict[int, torch.Tensor] = {}
        self.entropies: dict[int, torch.Tensor] = {}

    def add(self, micro_batch: TensorDict, log_prob_T: torch.Tensor, entropy_T: torch.Tensor) -> None:
        """Writes a micro batch's old log-probabilities into it, and keeps them by row of the batch."""
        lengths = micro_batch["responses"].offsets().diff().tolist()
        rows = tu.get_non_tensor_data(data=micro_batch, key=ROWS, default=None)
        self.log_probs.update(zip(rows, log_prob_T.split(lengths)))
        self.entropies.update(zip(rows, entropy_T.split(lengths)))
        micro_batch["old_log_probs"] = nested([self.log_probs[row] for row in rows])

    def around(self, loss_function: Callable, keeps_entropy: bool) -> Callable:
        """verl's loss, with each micro batch's own log-probabilities as the old ones where it has none.

        Args:
            keeps_entropy: the loss has an entropy term; else the entropy was computed for the metrics only.
        """

        def loss(model_output: dict[str, Any], data: TensorDict, **kwargs: Any) -> Any:
            rows, mask = data[ROWS].tolist(), data["response_mask"]
            entropy = model_output["entropy"] if keeps_entropy else model_output.pop("entropy")
            data["old_log_probs"] = response_from_nested(model_output["log_probs"].detach(), mask)
            self.log_probs.update(zip(rows, _on_cpu(data["old_log_probs"])))
            self.entropies.update(zip(rows, _on_cpu(response_from_nested(entropy.detach(), mask))))
            return loss_function(model_output=model_output, data=data, **kwargs)

        return loss

    def metrics(self, data: TensorDict, actor_config) -> dict[str, float]:
        """Entropy and the gap to the rollout's log-probabilities, under verl's names."""
        # As in verl's own pass, over all tokens, whether the loss is taken over them or not.
        mask = data["metric_mask" if "metric_mask" in data else "response_mask"]
        fields = {"response_mask": mask, "responses": data["responses"]}
        for name, values in (("old_log_probs", self.log_probs), ("entropy", self.entropies)):
            fields[name] = nested([values[row] for row in range(len(data))])
        if "rollout_log_probs" in data:
            fields["rollout_log_probs"] = data["rollout_log_probs"]
        padded = TensorDict(fields, batch_size=len(data)).to_padded_tensor()
        average = agg_loss(
            loss_mat=padded["entropy"],
            loss_mask=padded["response_mask"],
            loss_agg_mode=actor_config.loss_agg_mode,
            loss_scale_factor=actor_config.loss_scale_factor,
        )
        found = {"actor/entropy": average.item()}
        if "rollout_log_probs" in fields:
            found |= calculate_debug_metrics(DataProto(batch=padded))
        return {name: float(value) for name, value in found.items()}


def _on_cpu(field: torch.Tensor) -> list[torch.Tensor]:
    return rows_of(field.cpu())
