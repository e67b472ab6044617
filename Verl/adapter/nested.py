"""Rows of different lengths in one tensor, as verl's batches hold them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from tensordict.tensorclass import NonTensorData, NonTensorStack


def nested(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """A jagged tensor of the rows, with its longest row set: where that is unknown, torch pads to the sum of all."""
    lengths = [len(row) for row in rows]
    offsets = torch.tensor([0, *accumulate(lengths)])
    return torch.nested.nested_tensor_from_jagged(
        torch.cat(list(rows)), offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
    )


def with_longest(jagged: torch.Tensor) -> torch.Tensor:
    """The same tensor with its longest row set, which is lost where tensors are packed to be sent."""
    lengths, offsets = jagged.offsets().diff(), jagged.offsets()
    return torch.nested.nested_tensor_from_jagged(
        jagged.values(), offsets, min_seqlen=int(lengths.min()), max_seqlen=int(lengths.max())
    )


def rows_of(jagged: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Its rows, as views; `unbind` does the same row by row through Python's dispatch, several times slower."""
    if jagged.lengths() is not None:  # rows with gaps between them
        return jagged.unbind()
    return jagged.values().split(jagged.offsets().diff().tolist())


def places(length_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For rows laid end to end: where each begins (S,), and each token's place within its row (T,)."""
    first_S = length_S.cumsum(0) - length_S
    return first_S, torch.arange(int(length_S.sum())) - torch.repeat_interleave(first_S, length_S)


def stacked(values: Sequence[Any]) -> NonTensorStack:
    """One plain value per row; one that several rows share is wrapped once, which is nearly all of what a stack costs."""
    wrapped = {id(value): NonTensorData(value) for value in values}
    return NonTensorStack(*[wrapped[id(value)] for value in values])


def plain(column: Any) -> list:
    """A non-tensor column of a tensordict as a list of plain values, whichever of its wrappers it came in."""
    if hasattr(column, "tolist"):
        return column.tolist()
    return [getattr(value, "data", value) for value in column]
