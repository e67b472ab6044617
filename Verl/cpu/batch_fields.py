"""Which fields of a step's data go to a training worker on a CPU, and which it works out itself.

What is not sent is not packed, copied and unpacked. Three of the fields that verl 0.9.1 writes follow from others
(verl/trainer/ppo/v1/agent_loop_tq.py): a sequence is its prompt and its response, a text's positions count from 0, and the loss
is taken where the response mask is 1. And unless `KVBatchMeta.fields` says which, verl fetches every field that there is.
"""

import torch
from tensordict import TensorDict

from Verl.adapter.nested import nested, rows_of, with_longest

# What the loss reads, and what an update is sent: the rollout's log-probabilities too, for the metrics, and the masks of
# Verl/trainer/ppo/loss_mask.py. A name that no one has written is passed over.
FOR_THE_LOSS = ("prompts", "responses", "response_mask", "old_log_probs", "ref_log_prob", "advantages",
                "rollout_is_weights")  # fmt: skip
FOR_THE_UPDATE = (*FOR_THE_LOSS, "rollout_log_probs", "loss_mask", "metric_mask")


def complete(data: TensorDict) -> None:
    """Adds `input_ids`, `position_ids` and `loss_mask`, as verl's agent loop would have written them, where they are
    missing, and sets every field's longest row, which is lost on the way. Fields are nested, one row per response."""
    for name, field in list(data.items()):
        if isinstance(field, torch.Tensor) and field.is_nested and field.lengths() is None:
            data[name] = with_longest(field)
    if "input_ids" not in data:
        pairs = zip(rows_of(data["prompts"]), rows_of(data["responses"]), strict=True)
        data["input_ids"] = nested([torch.cat(pair) for pair in pairs])
    if "position_ids" not in data:
        data["position_ids"] = nested([torch.arange(length) for length in data["input_ids"].offsets().diff().tolist()])
    if "loss_mask" not in data:
        data["loss_mask"] = data["response_mask"]
