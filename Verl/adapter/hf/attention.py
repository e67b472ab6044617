"""Whether an attention function of ours can take the place of a model's."""

import torch
from transformers import PreTrainedModel


def why_attention_is_not_ours(model: PreTrainedModel | torch.nn.Module, config) -> str | None:
    """Why an attention function of ours can't take the place of this model's; None if it can."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers attend in other ways than to everything before ({', '.join(sorted(kinds))})"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "it attends through a sliding window"
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation}, not sdpa"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention can't be replaced (transformers' _supports_attention_backend)"
    return None
