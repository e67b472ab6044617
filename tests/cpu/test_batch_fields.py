"""What a worker works out itself is what verl's agent loop would have sent."""

import pickle

import torch
from tensordict import TensorDict

from Verl.adapter.nested import nested, rows_of
from Verl.cpu.batch_fields import complete


def batch(**more) -> TensorDict:
    prompts, responses = [torch.tensor([5, 6]), torch.tensor([7])], [torch.tensor([8]), torch.tensor([9, 1, 2])]
    masks = [torch.tensor([1]), torch.tensor([1, 0, 1])]
    fields = {"prompts": nested(prompts), "responses": nested(responses), "response_mask": nested(masks), **more}
    return TensorDict(fields, batch_size=2)


def rows(field: torch.Tensor) -> list[list[int]]:
    return [row.tolist() for row in rows_of(field)]


def test_by_hand():
    data = batch()
    complete(data)
    assert rows(data["input_ids"]) == [[5, 6, 8], [7, 9, 1, 2]]
    assert rows(data["position_ids"]) == [[0, 1, 2], [0, 1, 2, 3]]
    assert rows(data["loss_mask"]) == [[1], [1, 0, 1]]  # a tool's words, in several turns, are not learnt


def test_what_is_there_stays():
    data = batch(position_ids=nested([torch.tensor([4, 5, 6]), torch.tensor([0, 0, 0, 0])]))
    complete(data)
    assert rows(data["position_ids"]) == [[4, 5, 6], [0, 0, 0, 0]]


def test_a_batch_that_was_packed_to_be_sent_pads_to_its_longest_row():
    """verl packs what goes to a worker (verl/protocol.py, BatchData.chunk): fields then pad to the sum of all rows."""
    from verl.protocol import BatchData

    packed = pickle.loads(pickle.dumps(BatchData(batch()).chunk(1)[0]))  # as Ray sends it
    complete(packed)
    padded = packed.to_padded_tensor()
    assert padded["responses"].tolist() == [[8, 0, 0], [9, 1, 2]] and padded["prompts"].shape == (2, 2)
