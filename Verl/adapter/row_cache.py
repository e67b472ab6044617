"""A key-value cache whose rows come and go while they are decoded.

All rows write the same column: a row that joins late is laid so that its prompt ends where the others are, and the
columns before its prompt are hidden from it (left padding). Rows that have ended are left out, and columns that nobody
sees any more with them, whenever the cache is laid anew.

Shapes: R rows, C columns.
"""

from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class _RowLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer that is allocated once per laying."""

    is_sliding = False
    is_compileable = False

    def __init__(self, columns: int):
        super().__init__()
        self.columns, self.used = columns, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor | None = None) -> None:
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.columns, width)
        self.values = value_states.new_empty(rows, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self, *args) -> int:
        return self.used

    def get_max_cache_shape(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length, *args) -> tuple[int, int]:
        length = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.used + length, 0


class RowCache(Cache):
    """Keys and values of `layers` layers for rows that all stand at the same column."""

    def __init__(self, layers: int, columns: int):
        super().__init__(layers=[_RowLayer(columns) for _ in range(layers)])

    @property
    def used(self) -> int:
        return self.layers[0].used

    @classmethod
    def laid(cls, parts: Sequence[tuple["RowCache", torch.Tensor]], used: int, columns: int) -> "RowCache":
        """The given rows of several caches under one another, each ending at column `used`.

        Args:
            parts: a cache and which of its rows to take; of a longer one the last `used` columns.
            columns: room for what is still to be written.
        """
        layers = len(parts[0][0].layers)
        whole = cls(layers, columns)
        rows = sum(len(taken_R) for _, taken_R in parts)
        for number, layer in enumerate(whole.layers):
            first = parts[0][0].layers[number]
            layer.keys = first.keys.new_empty(rows, first.keys.shape[1], columns, first.keys.shape[3])
            layer.values = first.values.new_empty(rows, first.values.shape[1], columns, first.values.shape[3])
            start = 0
            for cache, taken_R in parts:
                source = cache.layers[number]
                width, end = min(source.used, used), start + len(taken_R)
                for name in ("keys", "values"):
                    target = getattr(layer, name)[start:end]
                    # Zeros, not what memory holds: a hidden column weighs nothing, but nothing times NaN is NaN.
                    target[:, :, : used - width] = 0
                    target[:, :, used - width : used] = getattr(source, name)[:, :, source.used - width : source.used][taken_R]
                start = end
            layer.used, layer.is_initialized = used, True
        return whole
