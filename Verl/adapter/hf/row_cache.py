"""Keys and values of rows that are being decoded; those of a prompt lie once, however many rows answer it.

    row = [its prompt, shared with the other rows that answer it | what it has said itself]

A decoding step reads all keys and values and multiplies each with one query only: it is bound by memory. With n rollouts of
a long prompt nearly all of that is the prompt, so reading it once for its n rows saves most of it (PagedAttention shares
the memory, Kwon et al. 2023; Hydragen, Juravsky et al. 2024, the reading). The two parts are put together in one
softmax.

All rows write the same column of their own part. A row that joins late does not see the columns before; columns that
nobody sees any more are dropped whenever the rows are laid anew.

Shapes: G prompts, n most rows of a prompt, R rows, H heads, K key-value heads, each for Q = H / K heads, D width of a head,
P columns of the prompts (padded on the left), C columns of the rows' own.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_utils import AttentionInterface

ATTENTION = "bandit_shared_rows"


@dataclass(frozen=True)
class Prompts:
    """What has been computed of the prompts: per layer keys and values (G, K, P, D), and which columns are real."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    visible_GP: torch.Tensor

    @classmethod
    def joined(cls, parts: list["Prompts"]) -> "Prompts":
        """All prompts of several, each padded on the left to the longest."""
        if len(parts) == 1:
            return parts[0]
        longest = max(part.visible_GP.shape[1] for part in parts)
        gaps = [longest - part.visible_GP.shape[1] for part in parts]

        def whole(layer: int, kind: int) -> torch.Tensor:
            # Zeros in the gaps: a hidden column weighs nothing, but nothing times NaN is NaN.
            return torch.cat([pad(part.layers[layer][kind], (0, 0, gap, 0)) for part, gap in zip(parts, gaps)])

        layers = [(whole(layer, 0), whole(layer, 1)) for layer in range(len(parts[0].layers))]
        return cls(layers, torch.cat([pad(part.visible_GP, (gap, 0)) for part, gap in zip(parts, gaps)]))

    def kept(self, keep_G: torch.Tensor) -> "Prompts":
        """Only some of them, without the columns that are none of theirs."""
        visible_GP = self.visible_GP[keep_G]
        first = int(visible_GP.any(0).int().argmax())
        if len(keep_G) == len(self.visible_GP) and first == 0:
            return self
        layers = [(keys[keep_G, :, first:], values[keep_G, :, first:]) for keys, values in self.layers]
        return Prompts(layers, visible_GP[:, first:])


class _RowLayer(CacheLayerMixin):
    """One layer's keys and values of what the rows have said, in a buffer with room for what they will."""

    is_sliding = False
    is_compileable = False

    def __init__(self, rows: int, columns: int, like: tuple[torch.Tensor, torch.Tensor]):
        super().__init__()
        self.keys, self.values = (x.new_zeros(rows, x.shape[1], columns, x.shape[3]) for x in like)
        self.used, self.is_initialized = 0, True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the prompt's keys and values gave the shapes."""

    def update(self, key_states, value_states, *args, **kwargs):
        end = self.used + key_states.shape[2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self, *args) -> int:
        return self.used

    def get_max_cache_shape(self) -> int:
        return self.keys.shape[2]

    def get_mask_sizes(self, query_length, *args) -> tuple[int, int]:
        length = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.used + length, 0


class RowCache(Cache):
    """Keys and values of rows that all stand at the same column of their own part.

    Args:
        prompts: of the rows.
        prompt_R: which prompt each row answers.
        first_R: the first of its own columns that each row sees.
        columns: of their own part.
    """

    def __init__(self, prompts: Prompts, prompt_R: torch.Tensor, first_R: torch.Tensor, columns: int):
        super().__init__(layers=[_RowLayer(len(prompt_R), columns, layer) for layer in prompts.layers])
        self.prompts, self.prompt_R, self.first_R = prompts, prompt_R, first_R
        self.groups = len(prompts.visible_GP)
        sizes_G = torch.bincount(prompt_R, minlength=self.groups)
        self.most = int(sizes_G.max())
        # A rectangle, prompts x most rows of one: `there` fills it with rows (any row where there is none), `back` finds
        # each row in it. None where the rows lie so already.
        self.there = self.back = None
        if not torch.equal(prompt_R, torch.arange(self.groups).repeat_interleave(self.most)):
            order_R = prompt_R.argsort(stable=True)
            start_G = sizes_G.cumsum(0) - sizes_G
            place_R = torch.empty_like(order_R)
            place_R[order_R] = torch.arange(len(order_R)) - start_G[prompt_R[order_R]]
            self.back = prompt_R * self.most + place_R
            self.there = torch.zeros(self.groups * self.most, dtype=torch.long)
            self.there[self.back] = torch.arange(len(prompt_R))
        self.hidden_prompt = self.hidden_own = None
        if not bool(prompts.visible_GP.all()):
            self.hidden_prompt = _hiding(~prompts.visible_GP)
        if bool(first_R.any()):
            self.hidden_own = _hiding(torch.arange(columns) < first_R[:, None])

    @property
    def used(self) -> int:
        return self.layers[0].used

    def kept(self, keep_R: torch.Tensor, new: tuple[Prompts, torch.Tensor] | None, left: int) -> "RowCache":
        """A cache of some of these rows and, below them, new ones that have said nothing yet.

        Args:
            new: prompts of the new rows, and which of them each answers.
            left: columns that are still to be written.
        """
        old_G, prompt_R = self.prompt_R[keep_R].unique(return_inverse=True)
        first_R = self.first_R[keep_R]
        first = int(first_R.min()) if len(keep_R) else self.used
        parts = [self.prompts.kept(old_G)] if len(keep_R) else []
        used, fresh = self.used - first, 0
        if new is not None:
            parts.append(new[0])
            prompt_R, fresh = torch.cat([prompt_R, new[1] + len(old_G)]), len(new[1])
        first_R = torch.cat([first_R - first, torch.full((fresh,), used)])
        laid = RowCache(Prompts.joined(parts), prompt_R, first_R, used + left)
        for target, source in zip(laid.layers, self.layers, strict=True):
            for name in ("keys", "values"):
                getattr(target, name)[: len(keep_R), :, :used] = getattr(source, name)[keep_R, :, first : self.used]
            target.used = used
        return laid

    def by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """(R, K, Q, X) -> (G, K, n Q, X): the rows of a prompt side by side."""
        if self.there is not None:
            x = x.index_select(0, self.there)
        _, heads, per, width = x.shape
        x = x.view(self.groups, self.most, heads, per, width).transpose(1, 2)
        return x.reshape(self.groups, heads, self.most * per, width)

    def by_row(self, x: torch.Tensor) -> torch.Tensor:
        """(G, K, n Q, X) -> (R, K, Q, X)."""
        _, heads, _, width = x.shape
        x = x.view(self.groups, heads, self.most, -1, width).transpose(1, 2)
        x = x.reshape(self.groups * self.most, heads, -1, width)
        return x if self.back is None else x.index_select(0, self.back)


def _hiding(hidden: torch.Tensor) -> torch.Tensor:
    """(rows, columns) as what is added to attention scores (rows, 1, 1, columns)."""
    return torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None, None]


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, rows: RowCache = None, **kwargs):
    """transformers' call of an attention function for one token per row: (R, H, 1, D) in, (R, 1, H, D) out; key and value
    are the rows' own (R, K, C, D)."""
    count, heads, _, width = query.shape
    prompt_key, prompt_value = rows.prompts.layers[module.layer_idx]
    query = (query * (width**-0.5 if scaling is None else scaling)).view(count, key.shape[1], -1, width)
    to_prompt = rows.by_prompt(query) @ prompt_key.transpose(2, 3)
    if rows.hidden_prompt is not None:
        to_prompt += rows.hidden_prompt
    to_own = query @ key.transpose(2, 3)
    if rows.hidden_own is not None:
        to_own += rows.hidden_own[..., : key.shape[2]]
    exact = torch.promote_types(query.dtype, torch.float32)
    weights = torch.cat([rows.by_row(to_prompt), to_own], dim=3).softmax(dim=3, dtype=exact).to(query.dtype)
    split = prompt_key.shape[2]
    output = rows.by_row(rows.by_prompt(weights[..., :split]) @ prompt_value) + weights[..., split:] @ value
    return output.reshape(count, 1, heads, width), None


AttentionInterface.register(ATTENTION, attention)
