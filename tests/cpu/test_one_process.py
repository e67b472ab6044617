"""One process's gradients, handed over, are those that FSDP2 would have reduced over it."""

import copy

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from Verl.cpu import one_process


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def sharded(network: torch.nn.Sequential, mesh) -> torch.nn.Module:
    network = copy.deepcopy(network)
    for layer in network:
        fully_shard(layer, mesh=mesh, reshard_after_forward=False)
    return fully_shard(network, mesh=mesh, reshard_after_forward=False)


def test_weights_after_steps_of_several_micro_batches_are_the_same(mesh):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    data = torch.randn(3, 2, 4, 3)  # steps x micro batches
    found = []
    for handed_over in (False, True):
        model = sharded(network, mesh)
        if handed_over:
            one_process.keep_gradients(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for step in data:
            for micro_batch in step:
                model(micro_batch).square().sum().backward()
            if handed_over:
                one_process.hand_over_gradients(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).full_tensor()
            optimizer.step()
            optimizer.zero_grad()
        model(data[0, 0])  # the next pass reads the new weights
        model.reshard()
        found.append([norm, *(value.full_tensor() for value in model.state_dict().values())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not torch.equal(found[0][1], network[0].weight)


class OneOfTwo(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_a_weight_that_took_no_part_has_no_gradient(mesh):
    model = fully_shard(OneOfTwo(), mesh=mesh, reshard_after_forward=False)
    one_process.keep_gradients(model)
    model(torch.ones(1, 2)).sum().backward()
    one_process.hand_over_gradients(model)
    assert {name: p.grad is not None for name, p in model.named_parameters()} == {
        "used.weight": True, "used.bias": True, "unused.weight": False, "unused.bias": False,
    }  # fmt: skip
