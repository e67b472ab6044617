"""Rows of different lengths in one tensor: as torch's own list form makes and takes them apart."""

import pytest
import torch

from Verl.adapter.nested import nested, places, rows_of

LENGTHS = [[3], [1, 4, 2], [2, 2, 2]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_like_torchs_own_but_it_knows_its_longest_row(lengths):
    rows = [torch.randn(length) for length in lengths]
    ours, theirs = nested(rows), torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    assert torch.equal(ours.values(), theirs.values()) and torch.equal(ours.offsets(), theirs.offsets())
    assert ours.to_padded_tensor(0).shape == (len(rows), max(lengths))
    for mine, torchs, row in zip(rows_of(ours), theirs.unbind(), rows, strict=True):
        assert torch.equal(mine, torchs) and torch.equal(mine, row)


def test_rows_with_gaps_between_them():
    values, offsets, lengths = torch.arange(10), torch.tensor([0, 4, 10]), torch.tensor([2, 3])
    jagged = torch.nested.nested_tensor_from_jagged(values, offsets, lengths)
    assert [row.tolist() for row in rows_of(jagged)] == [[0, 1], [4, 5, 6]]


def test_places():
    first, place = places(torch.tensor([2, 0, 3]))
    assert first.tolist() == [0, 2, 2] and place.tolist() == [0, 1, 0, 1, 2]
