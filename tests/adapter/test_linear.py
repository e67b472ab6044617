"""Linear layers that multiply by other libraries compute what torch's do."""

import copy

import pytest
import torch

from Verl.adapter import linear


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 24), (24, 8), (16, 16), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 33), (4, 7), (12,)])
def test_output_and_gradients_are_those_of_torch(inputs, outputs, bias, shape):
    torch.manual_seed(inputs)
    theirs = torch.nn.Linear(inputs, outputs, bias=bias)
    ours = copy.deepcopy(theirs)
    linear.use_in(ours)
    x = torch.randn(*shape, inputs)
    gradient = torch.randn(*shape, outputs)
    found = []
    for layer in (theirs, ours):
        x_own = x.clone().requires_grad_()
        y = layer(x_own)
        y.backward(gradient)
        found.append([y.detach(), x_own.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_an_input_that_needs_no_gradient_gets_none():
    layer = torch.nn.Linear(3, 2)
    linear.use_in(layer)
    x = torch.randn(4, 3)
    layer(x).sum().backward()
    assert x.grad is None and layer.weight.grad is not None


def test_it_leaves_alone_what_is_no_plain_fp32_layer():
    class Other(torch.nn.Linear):
        pass

    module = torch.nn.ModuleList([Other(2, 2), torch.nn.Linear(2, 2, dtype=torch.bfloat16), torch.nn.Linear(2, 2)])
    linear.use_in(module)
    assert ["forward" in vars(layer) for layer in module] == [False, False, True]


def test_new_weights_count():
    """Weights are sent to the rollout's model in place, and FSDP gives a layer other tensors at every pass."""
    layer = torch.nn.Linear(3, 2)
    linear.use_in(layer)
    x = torch.ones(1, 3)
    layer(x)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2, 3))
        layer.bias.zero_()
    assert layer(x).tolist() == [[1.0, 1.0]]
    layer.weight = torch.nn.Parameter(torch.zeros(2, 3))
    assert layer(x).tolist() == [[0.0, 0.0]]
