"""FSDP2 in one process: no other process shares the work, so gradients are handed over instead of reduced.

verl's fsdp2 engine shards a model whatever the number of processes. With one, a shard is the whole tensor; still torch copies
every gradient into a buffer, reduces it over one process and copies it out: for 135 M parameters 7 % of an update.
Here the gradients stay where autograd has put them, on the unsharded parameters, and are given to the sharded ones, which
the optimizer knows, as they are. All of it by FSDP2's public functions.
"""

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def keep_gradients(module: FSDPModule) -> None:
    """From now on a backward pass leaves gradients on the unsharded parameters."""
    module.set_requires_gradient_sync(False)
    module.set_reshard_after_backward(False)


def hand_over_gradients(module: FSDPModule) -> None:
    """The gradients that backward passes have left, to the sharded parameters; the module is sharded afterwards.

    Raises:
        RuntimeError: a sharded parameter is not the whole one: there are several processes.
    """
    gradients = {}
    for name, parameter in module.named_parameters():
        gradients[name], parameter.grad = parameter.grad, None
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    for name, parameter in module.named_parameters():
        gradient = gradients[name]
        if gradient is None or isinstance(gradient, DTensor):  # none, or there already
            parameter.grad = gradient
            continue
        if parameter.to_local().shape != gradient.shape:
            raise RuntimeError(f"{name} is sharded over several processes: its gradient has to be reduced")
        parameter.grad = DTensor.from_local(gradient, parameter.device_mesh, parameter.placements, run_check=False)


def is_alone() -> bool:
    return torch.distributed.get_world_size() == 1
