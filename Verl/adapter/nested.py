"""Rows of different lengths in one tensor, as verl's batches hold them."""

from collections.abc import Sequence

import torch


def nested(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """A jagged tensor of the rows. Made from a list: one made by `nested_tensor_from_jagged` does not know its longest row
    and pads to the sum of all."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def places(length_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For rows laid end to end: where each begins (S,), and each token's place within its row (T,)."""
    first_S = length_S.cumsum(0) - length_S
    return first_S, torch.arange(int(length_S.sum())) - torch.repeat_interleave(first_S, length_S)
