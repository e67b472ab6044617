"""One prompt, n responses: a forward pass that computes a shared prompt once.

The n rollouts of a query begin with the same tokens. Laid side by side, each as its own row, the prompt goes through
the model n times, and every row is padded to the longest. Here a micro batch is one row without padding,

    [prompt 1 | ... | prompt G | response 1 | ... | response S]

so that everything that works token by token (projections, feed-forward, norms: nearly all of the work) sees each token
once. Only the attention knows who belongs to whom: a prompt attends to itself, a response to its prompt and to itself.
It is handed to transformers as an attention function of its own, so that the model's code stays as it is.

A response's last token predicts nothing and is left out; of the prompts only the last token's logits are computed.

Shapes: G prompts, S responses, N tokens of the row, P and R longest prompt and response (its last token left out) of the
micro batch, K rows of logits, T response tokens.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import AttentionInterface

from Verl.adapter.nested import places

ATTENTION = "bandit_shared_prefix"


class _Rearrange(torch.autograd.Function):
    """Rows of x in another order, some twice as filling. `back` says where each row of x went, so that the gradient is
    a selection too; index_select's own gradient adds row by row, which is several times slower on a CPU."""

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx, gradient):
        (back,) = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


@dataclass(frozen=True)
class Padding:
    """Between ragged rows end to end and a rectangle (rows x longest): `there` fills the rectangle from the flat tokens
    (gaps hold the row's first token), `back` finds each flat token in the rectangle."""

    rows: int
    longest: int
    there: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, lengths: torch.Tensor) -> "Padding":
        rows, longest = len(lengths), int(lengths.max())
        start, _ = places(lengths)
        column = torch.arange(longest)
        real = column < lengths[:, None]
        last = max(int(lengths.sum()) - 1, 0)
        there = torch.where(real, start[:, None] + column, start[:, None].clamp(max=last))
        return cls(rows, longest, there.reshape(-1), real.reshape(-1).nonzero().flatten())

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, heads, width) -> (rows, heads, longest, width)."""
        return _Rearrange.apply(x, self.there, self.back).view(self.rows, self.longest, *x.shape[1:]).transpose(1, 2)

    def unpad(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, heads, longest, width) -> (tokens, heads, width)."""
        flat = x.transpose(1, 2).reshape(self.rows * self.longest, x.shape[1], x.shape[3])
        return flat.index_select(0, self.back)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a micro batch lie, and who attends to whom."""

    input_ids_N: torch.Tensor
    position_ids_N: torch.Tensor
    kept_K: torch.Tensor  # tokens whose logits are wanted: the prompts' last, then all response tokens of the row
    row_T: torch.Tensor  # which row of the logits predicts each response token, responses in the caller's order
    label_T: torch.Tensor
    prompt_of_S: torch.Tensor
    prompts: Padding
    responses: Padding
    visible: torch.Tensor  # (S, 1, R, P + R)

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompts.back)

    @classmethod
    def of(cls, prompts: Sequence[torch.Tensor], responses: Sequence[torch.Tensor], prompt_of: Sequence[int]) -> "Layout":
        """The layout of responses to prompts; response s answers prompt `prompt_of[s]`.

        Raises:
            ValueError: an empty prompt or response.
        """
        if any(len(ids) == 0 for ids in (*prompts, *responses)):
            raise ValueError("a prompt or a response is empty: each needs at least one token")
        prompt_of_S = torch.tensor(prompt_of)
        prompt_G = torch.tensor([len(ids) for ids in prompts])
        whole_S = torch.tensor([len(ids) for ids in responses])
        inner_S = whole_S - 1
        inner = [ids[:-1] for ids in responses]
        rows, columns = Padding.of(prompt_G), Padding.of(inner_S)
        positions = [torch.arange(length) for length in prompt_G.tolist()]
        starts = prompt_G[prompt_of_S].tolist()
        positions += [torch.arange(start, start + length) for start, length in zip(starts, inner_S.tolist())]
        count, total = len(prompts), int(prompt_G.sum())
        # Response s is predicted by its prompt's last token, then by its own tokens: rows of the kept logits.
        own_S = places(inner_S)[0] + count
        first_S, place_T = places(whole_S)
        row_T = torch.repeat_interleave(own_S, whole_S) + place_T - 1
        row_T[first_S] = prompt_of_S
        return cls(
            input_ids_N=torch.cat([*prompts, *inner]),
            position_ids_N=torch.cat(positions),
            kept_K=torch.cat([prompt_G.cumsum(0) - 1, torch.arange(total, total + int(inner_S.sum()))]),
            row_T=row_T,
            label_T=torch.cat(list(responses)),
            prompt_of_S=prompt_of_S,
            prompts=rows,
            responses=columns,
            visible=_visible(prompt_G[prompt_of_S], rows.longest, columns.longest),
        )


def _visible(prompt_S: torch.Tensor, longest_prompt: int, longest_response: int) -> torch.Tensor:
    """(S, 1, R, P + R): a response token sees its whole prompt, and of its response what is not after it."""
    prompt = torch.arange(longest_prompt) < prompt_S[:, None, None, None]
    own = torch.ones(longest_response, longest_response, dtype=torch.bool).tril()
    rows = len(prompt_S)
    return torch.cat(
        [prompt.expand(rows, 1, longest_response, -1), own.expand(rows, 1, longest_response, longest_response)], dim=3
    )


def shared_prefix_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, layout=None, **kwargs):
    """transformers' call of an attention function: (1, heads, N, width) in, (1, N, heads, width) out."""
    # Token by token: (N, heads, width). Split, not sliced: the gradient of a slice is a row of zeros as long as the whole.
    cut, groups = layout.prompt_tokens, query.shape[1] // key.shape[1]
    ends = [cut, query.shape[2] - cut]
    (query, own_query), (key, own_key), (value, own_value) = (x[0].transpose(0, 1).split(ends) for x in (query, key, value))
    key, value = (repeat_kv(layout.prompts.pad(x), groups) for x in (key, value))
    # Prompts are padded on the right, where the causal order hides the padding from all that is real.
    output = scaled_dot_product_attention(layout.prompts.pad(query), key, value, is_causal=True, scale=scaling)
    parts = [layout.prompts.unpad(output)]
    if layout.responses.longest:
        own_key, own_value = (repeat_kv(layout.responses.pad(x), groups) for x in (own_key, own_value))
        output = scaled_dot_product_attention(
            layout.responses.pad(own_query),
            torch.cat([key.index_select(0, layout.prompt_of_S), own_key], dim=2),
            torch.cat([value.index_select(0, layout.prompt_of_S), own_value], dim=2),
            attn_mask=layout.visible,
            scale=scaling,
        )
        parts.append(layout.responses.unpad(output))
    return torch.cat(parts)[None], None


AttentionInterface.register(ATTENTION, shared_prefix_attention)


@contextmanager
def attention_swapped(config, name: str):
    """A model's attention function, by its config, swapped meanwhile for a registered one of ours. It is not in
    transformers' table of masks, so that no causal mask over the whole row is built."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def forward_logits(model: torch.nn.Module, config, layout: Layout) -> torch.Tensor:
    """(K, vocabulary): the logits at `layout.kept_K`.

    Args:
        model: the causal language model, maybe wrapped (FSDP).
        config: its Hugging Face config, whose attention is switched for the time of this pass.
    """
    with attention_swapped(config, ATTENTION):
        output = model(
            input_ids=layout.input_ids_N[None],
            attention_mask=None,
            position_ids=layout.position_ids_N[None],
            use_cache=False,
            logits_to_keep=layout.kept_K,
            layout=layout,
        )
    return output.logits[0]


def response_log_probs(logits_KV: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """(T,) log-probability of each response token, and (K, vocabulary) the log-probabilities of all tokens."""
    log_probs_KV = logits_KV.log_softmax(dim=-1)
    return log_probs_KV[layout.row_T, layout.label_T], log_probs_KV


def entropy(log_probs_KV: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(T,) entropy, in nats, of the distribution that each response token was drawn from."""
    return -(log_probs_KV.exp() * log_probs_KV).sum(dim=-1)[layout.row_T]


def group_by_prompt(prompts: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Which responses answer the same prompt, by its tokens."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(prompts):
        groups.setdefault(tuple(ids), []).append(row)
    return groups


def micro_batches(prompts: Sequence[Sequence[int]], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Rows of a batch in micro batches of at most `most_tokens` tokens (a single longer response excepted), a shared
    prompt counted once. Responses of a prompt stay together where they fit; neighbours are of like lengths, so that the
    attention's rectangles are filled.

    Args:
        prompts: token ids of each response's prompt.
        lengths: tokens of each response.
    """
    groups = [
        (len(prompt), sorted(rows, key=lambda row: (lengths[row], row)))
        for prompt, rows in group_by_prompt(prompts).items()
    ]
    groups.sort(key=lambda group: (group[0], lengths[group[1][-1]], group[1][0]))
    batches: list[list[int]] = []
    used = most_tokens  # of the batch that is being filled
    for prompt, rows in groups:
        present = False  # whether this batch has the prompt already
        if used + prompt + sum(lengths[row] for row in rows) > most_tokens:
            used = most_tokens
        for row in rows:
            if not batches or used + (0 if present else prompt) + lengths[row] > most_tokens:
                batches.append([])
                used, present = 0, False
            used += lengths[row] + (0 if present else prompt)
            present = True
            batches[-1].append(row)
    return batches


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


def why_not(model: PreTrainedModel | torch.nn.Module, config) -> str | None:
    """Why this model's prompts can't be shared in training; None if they can."""
    reason = why_attention_is_not_ours(model, config)
    if reason:
        return reason
    if getattr(model, "is_gradient_checkpointing", False):
        return "gradient checkpointing recomputes the attention after this pass"
    if getattr(config, "attention_dropout", 0.0):
        return "it drops out attention weights"
    return None
