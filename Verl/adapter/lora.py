"""LoRA adapters merged into the weights that they adapt.

verl 0.9.1 wraps the policy with peft where `actor_rollout_ref.model.lora_rank` is above 0: of each linear layer W it trains

    W + (alpha / r) B A,    A (r, in), B (out, r)

and keeps W as it is (Hu et al. 2021, arXiv 2106.09685). Whoever only computes with the policy (the rollout, an evaluation, an
exported model) is given the sum. verl's own merge rounds it to bf16, which is coarser than a step; here it keeps its type.
"""

from collections.abc import Mapping

import torch

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"
_WRAPPER = "base_model.model."  # peft's two classes around the model


def has_adapters(names: Mapping[str, object]) -> bool:
    """Whether these are the weights of a model with LoRA adapters, by their names."""
    return any("lora_" in name for name in names)


def merged(state: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """The weights with their adapters added, under the names of the model without them.

    Args:
        state: whole weights by peft's names.
        scale: alpha / r.

    Raises:
        ValueError: an adapter of another kind than a linear layer's.
    """
    if others := [name for name in state if "lora_" in name and not name.endswith((_A, _B))]:
        raise ValueError(f"the adapter {others[0]} is not a linear layer's, and can't be merged")
    found = {}
    for name, weight in state.items():
        if name.endswith((_A, _B)):
            continue
        own = name.removeprefix(_WRAPPER)
        if _BASE in name and name.endswith(".weight"):
            layer = name.removesuffix(f"{_BASE}weight")
            weight = weight + scale * (state[layer + _B] @ state[layer + _A])
        found[own.replace(_BASE, ".")] = weight
    return found
