"""One prompt, n responses: a forward pass that computes a shared prompt once.

The n rollouts of a query begin with the same tokens, and the prompts of a data set often with those of one system message
or of one template (their stem, Verl/adapter/stem.py). Laid side by side, each as its own row, the prompt goes through the
model n times, and every row is padded to the longest. Here a micro batch is one row without padding,

    [stem | rest of prompt 1 | ... | rest of prompt G | response 1 | ... | response S]

so that everything that works token by token (projections, feed-forward, norms: nearly all of the work) sees each token
once. Only the attention knows who belongs to whom: a prompt's rest attends to the stem and to itself, a response to the
stem, its prompt and itself. It is handed to transformers as an attention function of its own, so that the model's code stays
as it is.

A response's last token predicts nothing and is left out; of the prompts only the last token's logits are computed, and
the last layer does no more for the others than that needs (last_layer.py).

Shapes: G prompts, S responses, N tokens of the row, P and R longest prompt (without the stem) and response (its last token
left out) of the micro batch, K rows of logits, T response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import AttentionInterface

from Verl.adapter.hf import last_layer
from Verl.adapter.hf.attention import why_attention_is_not_ours
from Verl.adapter.interface import replaced
from Verl.adapter.nested import places
from Verl.adapter.stem import stem_length
from Verl.cpu.shared_attention import Attention, Padding, Part

ATTENTION = "bandit_shared_prefix"


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a micro batch lie, and who attends to whom."""

    input_ids_N: torch.Tensor
    position_ids_N: torch.Tensor
    kept_K: torch.Tensor  # tokens whose logits are wanted: the prompts' last, then all response tokens of the row
    row_T: torch.Tensor  # which row of the logits predicts each response token, responses in the caller's order
    label_T: torch.Tensor
    parts: tuple[Part, ...]

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
        stem = stem_length([ids.tolist() for ids in prompts])
        rest_G = prompt_G - stem
        positions = [torch.arange(stem), *(torch.arange(stem, length) for length in prompt_G.tolist())]
        starts = prompt_G[prompt_of_S].tolist()
        positions += [torch.arange(start, start + length) for start, length in zip(starts, inner_S.tolist())]
        count, total = len(prompts), stem + int(rest_G.sum())
        # Response s is predicted by its prompt's last token, then by its own tokens: rows of the kept logits.
        own_S = places(inner_S)[0] + count
        first_S, place_T = places(whole_S)
        row_T = torch.repeat_interleave(own_S, whole_S) + place_T - 1
        row_T[first_S] = prompt_of_S
        return cls(
            input_ids_N=torch.cat([prompts[0][:stem], *(ids[stem:] for ids in prompts), *inner]),
            position_ids_N=torch.cat(positions),
            kept_K=torch.cat([stem + rest_G.cumsum(0) - 1, torch.arange(total, total + int(inner_S.sum()))]),
            row_T=row_T,
            label_T=torch.cat(list(responses)),
            parts=_parts(stem, rest_G, inner_S, prompt_of_S),
        )


def _parts(stem: int, rest_G: torch.Tensor, inner_S: torch.Tensor, prompt_of_S: torch.Tensor) -> tuple[Part, ...]:
    """Each piece of the row to itself; then responses to their prompt, those of a prompt side by side, and all to the stem."""
    # Rows are padded on the right, where the causal order hides the padding from all that is real.
    prompts, total, answered = Padding.of(rest_G, stem), stem + int(rest_G.sum()), int(inner_S.sum())
    own, others = [prompts], []
    if answered:
        responses = Padding.of(inner_S, total)
        own.append(responses)
        prompt_of_T = torch.repeat_interleave(prompt_of_S, inner_S)
        tokens_G = torch.bincount(prompt_of_T, minlength=len(rest_G))
        gaps_GP = torch.arange(prompts.longest) >= rest_G[:, None]
        hidden = torch.zeros(gaps_GP.shape).masked_fill(gaps_GP, -torch.inf)[:, None, None] if bool(gaps_GP.any()) else None
        together = Padding.of(tokens_G, total, prompt_of_T.argsort(stable=True))
        others.append(Part(together, prompts, causal=False, hidden=hidden))
    if stem:
        first = Padding.of(torch.tensor([stem]))
        own.append(first)
        others.append(Part(Padding.of(torch.tensor([total - stem + answered]), stem), first, causal=False))
    return (*(Part(piece, piece, causal=True) for piece in own), *others)


def shared_prefix_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, layout=None, **kwargs):
    """transformers' call of an attention function: (1, heads, N, width) in, (1, N, heads, width) out."""
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    return Attention.apply(query, key, value, layout.parts, scaling)[None], None


AttentionInterface.register(ATTENTION, shared_prefix_attention)


def forward_logits(model: torch.nn.Module, config, layout: Layout) -> torch.Tensor:
    """(K, vocabulary): the logits at `layout.kept_K`.

    Args:
        model: the causal language model, maybe wrapped (FSDP).
        config: its Hugging Face config, whose attention is switched for the time of this pass.
    """
    # The function is not in transformers' table of masks, so that no causal mask over the whole row is built.
    with replaced(on=config, _attn_implementation=ATTENTION), last_layer.only(model, layout.kept_K):
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
    prompt and the stem counted once. Responses of a prompt stay together where they fit; neighbours are of like lengths,
    so that the attention's rectangles are filled.

    Args:
        prompts: token ids of each response's prompt.
        lengths: tokens of each response.
    """
    by_prompt = group_by_prompt(prompts)
    stem = stem_length(list(by_prompt))
    groups = [(len(prompt) - stem, sorted(rows, key=lambda row: (lengths[row], row))) for prompt, rows in by_prompt.items()]
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
                used, present = stem, False
            used += lengths[row] + (0 if present else prompt)
            present = True
            batches[-1].append(row)
    return batches


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
