"""The floor's model: a Qwen2 or Llama transformer written out in plain PyTorch, and nothing around it.

Shapes: G queries, n rollouts each, S = G n sequences, P prompt tokens, R response tokens that are inputs, L layers, H heads, K
key-value heads, D width of a head, C width of the model, V vocabulary. All prompts have P tokens and all responses the same
number, so that nothing is padded and nothing masked but the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

Attend = "Callable[[int, Tensor, Tensor, Tensor], Tensor]"


@dataclass
class Layer:
    """One block's weights; q, k, v and gate, up are one matrix each: fewer calls."""

    norm1: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    out: torch.Tensor
    norm2: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Bare:
    """The weights and the forward pass over a flat list of tokens; what attends to what is the caller's."""

    def __init__(self, folder: Path, grad: bool):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config, state = model.config, model.state_dict()
        assert config.tie_word_embeddings and config.model_type in ("qwen2", "llama"), config.model_type
        self.heads, self.kv_heads, self.eps = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.rms_norm_eps,
        )
        self.width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

        def joined(prefix: str, names: tuple[str, ...], kind: str) -> torch.Tensor | None:
            keys = [f"{prefix}{name}_proj.{kind}" for name in names]
            return torch.cat([state[key] for key in keys]) if keys[0] in state else None

        self.embedding = state["model.embed_tokens.weight"].clone()
        self.norm = state["model.norm.weight"].clone()
        self.layers = [
            Layer(
                norm1=state[f"{at}input_layernorm.weight"].clone(),
                qkv=joined(f"{at}self_attn.", ("q", "k", "v"), "weight"),
                qkv_bias=joined(f"{at}self_attn.", ("q", "k", "v"), "bias"),
                out=state[f"{at}self_attn.o_proj.weight"].clone(),
                norm2=state[f"{at}post_attention_layernorm.weight"].clone(),
                gate_up=joined(f"{at}mlp.", ("gate", "up"), "weight"),
                down=state[f"{at}mlp.down_proj.weight"].clone(),
            )
            for at in (f"model.layers.{number}." for number in range(config.num_hidden_layers))
        ]
        inverse = config.rope_parameters["rope_theta"] ** -(torch.arange(0, self.width, 2) / self.width)
        angles = torch.outer(torch.arange(4096).float(), torch.cat([inverse, inverse]))
        self.cos, self.sin = angles.cos(), angles.sin()
        for weight in self.parameters():
            weight.requires_grad_(grad)

    def parameters(self) -> list[torch.Tensor]:
        per_layer = [weight for layer in self.layers for weight in vars(layer).values() if weight is not None]
        return [self.embedding, *per_layer, self.norm]

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """(tokens, C) last hidden states of a flat list of tokens at these positions.

        `attend(layer, q, k, v)` gets (tokens, H or K, D), rotated, and returns (tokens, H D).
        """
        x = F.embedding(ids, self.embedding)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        size = (x.shape[1],)
        for number, layer in enumerate(self.layers):
            y = F.linear(F.rms_norm(x, size, layer.norm1, self.eps), layer.qkv, layer.qkv_bias)
            q, k, v = y.view(len(ids), -1, self.width).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            y = attend(number, _rotate(q, cos, sin), _rotate(k, cos, sin), v)
            x = x + F.linear(y, layer.out)
            gate, up = F.linear(F.rms_norm(x, size, layer.norm2, self.eps), layer.gate_up).chunk(2, dim=1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return F.rms_norm(x, size, self.norm, self.eps)

    def log_probs(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the targets at the positions whose hidden states these are."""
        return -F.cross_entropy(F.linear(hidden, self.embedding), targets, reduction="none")


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def _heads_first(x: torch.Tensor, rows: int, heads: int) -> torch.Tensor:
    """(rows x tokens, heads', D) as (rows, heads, tokens, D), key-value heads repeated to the query heads."""
    x = x.reshape(rows, -1, *x.shape[1:]).transpose(1, 2)
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """(rows, heads, tokens, D) back to (rows x tokens, heads D)."""
    return x.transpose(1, 2).reshape(x.shape[0] * x.shape[2], -1)


def causal(rows: int, heads: int, keep: list | None = None) -> Attend:
    """Plain causal attention within each of `rows` sequences; keys and values go to `keep`."""

    def attend(layer, q, k, v):
        if keep is not None:
            keep.append([_heads_first(x, rows, x.shape[1]) for x in (k, v)])
        q, k, v = (_heads_first(x, rows, heads) for x in (q, k, v))
        return _flat(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    return attend


def unshared(model: Bare, prompts_GP: torch.Tensor, responses_ST: torch.Tensor) -> torch.Tensor:
    """(S, T) log-probabilities of the responses, every sequence carrying its prompt."""
    rollouts, length = len(responses_ST) // len(prompts_GP), prompts_GP.shape[1]
    ids = torch.cat([prompts_GP.repeat_interleave(rollouts, dim=0), responses_ST[:, :-1]], dim=1)
    positions = torch.arange(ids.shape[1]).repeat(len(ids))
    hidden = model.hidden(ids.flatten(), positions, causal(len(ids), model.heads)).view(*ids.shape, -1)
    response_hidden = hidden[:, length - 1 :].reshape(responses_ST.numel(), -1)
    return model.log_probs(response_hidden, responses_ST.flatten()).view_as(responses_ST)


def shared(model: Bare, prompts_GP: torch.Tensor, responses_ST: torch.Tensor) -> torch.Tensor:
    """The same numbers, every prompt carried once: G P + S R tokens instead of S (P + R)."""
    groups, length = prompts_GP.shape
    sequences, inner = len(responses_ST), responses_ST.shape[1] - 1
    rollouts, split = sequences // groups, groups * length
    # A response token sees its whole prompt and its own past.
    mask = torch.ones(inner, length + inner, dtype=torch.bool).tril(length)
    prompt = causal(groups, model.heads)

    def attend(layer, q, k, v):
        y = prompt(layer, q[:split], k[:split], v[:split])
        if not inner:
            return y
        k_all, v_all = (
            torch.cat(
                [
                    _heads_first(x[:split], groups, model.heads).repeat_interleave(rollouts, dim=0),
                    _heads_first(x[split:], sequences, model.heads),
                ],
                dim=2,
            )
            for x in (k, v)
        )
        own = F.scaled_dot_product_attention(
            _heads_first(q[split:], sequences, model.heads), k_all, v_all, attn_mask=mask
        )
        return torch.cat([y, _flat(own)])

    ids = torch.cat([prompts_GP.flatten(), responses_ST[:, :-1].flatten()])
    positions = torch.cat([torch.arange(length).repeat(groups), torch.arange(length, length + inner).repeat(sequences)])
    hidden = model.hidden(ids, positions, attend)
    last = hidden[:split].view(groups, length, -1)[:, -1].repeat_interleave(rollouts, dim=0)
    response_hidden = torch.cat([last[:, None], hidden[split:].view(sequences, inner, -1)], dim=1)
    return model.log_probs(response_hidden.flatten(0, 1), responses_ST.flatten()).view_as(responses_ST)


@torch.inference_mode()
def rollout(
    model: Bare, prompts_GP: torch.Tensor, rollouts: int, tokens: int, banned: int | None = None
) -> torch.Tensor:
    """(S, T) sampled responses. A prompt is prefilled once; its keys and values are read by its n rows, never copied."""
    groups, length = prompts_GP.shape
    sequences, per_kv = groups * rollouts, model.heads // model.kv_heads
    cache: list[list[torch.Tensor]] = []
    attend = causal(groups, model.heads, keep=cache)
    hidden = model.hidden(prompts_GP.flatten(), torch.arange(length).repeat(groups), attend)
    last = hidden.view(groups, length, -1)[:, -1].repeat_interleave(rollouts, dim=0)
    own = [torch.empty(2, sequences, model.kv_heads, tokens, model.width) for _ in model.layers]
    scale = model.width**-0.5
    out = torch.empty(sequences, tokens, dtype=torch.long)

    def decode(layer, q, k, v):
        keys, values = own[layer]
        keys[:, :, step], values[:, :, step] = k, v
        q = q.view(groups, rollouts, model.kv_heads, per_kv, model.width) * scale
        q_prompt = q.transpose(1, 2).reshape(groups, model.kv_heads, rollouts * per_kv, model.width)
        to_prompt = (q_prompt @ cache[layer][0].transpose(-1, -2)).view(
            groups, model.kv_heads, rollouts, per_kv, length
        )
        to_own = q.view(sequences, model.kv_heads, per_kv, -1) @ keys[:, :, : step + 1].transpose(-1, -2)
        weights = torch.cat([to_prompt.transpose(1, 2).reshape(*to_own.shape[:3], length), to_own], dim=-1).softmax(-1)
        on_prompt = weights[..., :length].reshape(groups, rollouts, model.kv_heads, per_kv, length).transpose(1, 2)
        y = on_prompt.reshape(groups, model.kv_heads, rollouts * per_kv, length) @ cache[layer][1]
        y = y.view(groups, model.kv_heads, rollouts, per_kv, -1).transpose(1, 2).reshape(*to_own.shape[:3], -1)
        return (y + weights[..., length:] @ values[:, :, : step + 1]).view(sequences, -1)

    for step in range(tokens):
        logits = F.linear(last, model.embedding)
        if banned is not None:
            logits[:, banned] = -torch.inf
        out[:, step] = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
        if step + 1 < tokens:
            last = model.hidden(out[:, step], torch.full((sequences,), length + step), decode)
    return out
