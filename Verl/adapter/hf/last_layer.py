"""Of most of a prompt the last layer is asked for its keys and values only.

Logits are wanted at a prompt's last token and at the response's. The other tokens of a prompt are attended to, in every
layer, but what the last layer makes of them (output projection, feed-forward) nobody reads. With one rollout a query three
quarters of the tokens may be the prompt's, so of a model of L layers some 0.6 / L of the work falls away, at the same numbers.

Both modules work token by token: they are handed the wanted tokens, and zeros stand for the rest of what they give.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def only(model: torch.nn.Module, kept_K: torch.Tensor) -> Iterator[None]:
    """Around a forward pass over (rows, N tokens): the last layer's work for these tokens only.

    Args:
        model: a causal language model of transformers, maybe wrapped. A part that its last layer has under another name
            than `self_attn.o_proj` or `mlp`, or a mixture of experts, is computed for all tokens.
        kept_K: places among the N whose hidden states are read.
    """
    with ExitStack() as stack:
        for module in _token_by_token(model):
            for hook in _hooks(module, kept_K):
                stack.callback(hook.remove)
        yield


def _token_by_token(model: torch.nn.Module) -> list[torch.nn.Module]:
    layer = model.get_decoder().layers[-1]
    found = [getattr(getattr(layer, "self_attn", None), "o_proj", None)]
    if hasattr(getattr(layer, "mlp", None), "down_proj"):
        found.append(layer.mlp)
    return [module for module in found if module is not None]


def _hooks(module: torch.nn.Module, kept_K: torch.Tensor) -> tuple:
    tokens = 0

    def before(module, inputs):
        nonlocal tokens
        tokens = inputs[0].shape[1]
        return (inputs[0].index_select(1, kept_K),)

    def after(module, inputs, output):
        return output.new_zeros(len(output), tokens, output.shape[2]).index_copy(1, kept_K, output)

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)
