"""Who was cut off, and the masks that an update sees, by hand."""

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss

from Verl.adapter.nested import nested
from Verl.cpu.local_queue import installed
from Verl.trainer.ppo.loss_mask import LossMask, cut_off, mini_batches, not_trained_on


def test_cut_off_is_what_no_end_token_ends():
    """The last one has the longest length, and ended by itself."""
    assert cut_off([[5, 2], [5, 5, 5], [], [5, 5, 2]], {2}) == [False, True, False, False]


@pytest.mark.parametrize(
    "train_on, mask_truncated, expected",
    [("all", False, [False] * 4), ("all", True, [False, True, False, True]), ("right", False, [False, False, True, True]),
     ("wrong", False, [True, True, False, False]), ("wrong", True, [True, True, False, True])],
)  # fmt: skip
def test_which_responses_are_not_trained_on(train_on, mask_truncated, expected):
    """Rewards 1, 0.5, 0 and, after a penalty, -0.5; the second and the last were cut off."""
    algorithm = OmegaConf.create({"train_on": train_on, "mask_truncated": mask_truncated})
    assert not_trained_on([1.0, 0.5, 0.0, -0.5], [False, True, False, True], algorithm) == expected


def mask(*lengths: int) -> LossMask:
    return LossMask.of(nested([torch.ones(length, dtype=torch.long) for length in lengths]))


def rows(values) -> list[list[int]]:
    return [row.tolist() for row in values]


def test_a_masked_response_is_in_neither_mask():
    one = mask(2, 3, 1)
    assert not one.changed and not one.left_out.any()
    one.leave_out([1], [[0, 1, 2]])
    assert one.changed and one.left_out.tolist() == [False, True, False]
    assert rows(one.in_loss) == rows(one.counted) == [[1, 1], [0, 0, 0], [1]]


def test_a_mini_batch_of_nothing_else_keeps_its_denominator():
    """Its loss and its gradient are 0; with a denominator of 0 they would not be numbers."""
    one = mask(2, 3, 1, 2)
    one.leave_out([0, 1, 2], [[0, 1], [2, 3]])
    assert rows(one.in_loss) == [[0, 0], [0, 0, 0], [0], [1, 1]]
    assert rows(one.counted) == [[1, 1], [1, 1, 1], [0], [1, 1]]


def test_verl_s_padding_rows_are_no_responses():
    one = LossMask.of(nested([torch.ones(2), torch.zeros(1)]))
    assert not one.left_out.any()
    one.leave_out([0], [[0, 1]])  # but a mini-batch of masked responses and padding has no other denominator
    assert rows(one.counted) == [[1, 1], [0]] and one.left_out.tolist() == [True, False]


def test_rejected_tokens_stay_in_the_denominator():
    one = mask(2, 3)
    one.reject(torch.tensor([[1, 1, 0], [1, 0, 1]]))
    assert rows(one.in_loss) == [[1, 1], [1, 0, 1]] and rows(one.counted) == [[1, 1], [1, 1, 1]]
    one.reject(torch.tensor([[0, 0, 0], [1, 1, 1]]))
    assert one.left_out.tolist() == [True, False]


@pytest.mark.parametrize(
    "mode, expected", [("token-mean", 5 / 3), ("seq-mean-token-sum", 5 / 2), ("seq-mean-token-mean", 5 / 6)]
)
def test_the_loss_of_a_masked_response_by_hand(mode, expected):
    """Losses 1, 2, 2 | 4, 4 of which the second response is masked. A token mean divides by the 3 tokens that are left; the
    sequence modes divide by the mini-batch's 2 responses, as verl has them do."""
    one = mask(3, 2)
    one.leave_out([1], [[0, 1]])
    loss = agg_loss(
        torch.tensor([[1.0, 2, 2], [4, 4, 0]]), nested(one.in_loss).to_padded_tensor(0), mode, dp_size=1,
        batch_num_tokens=int(sum(row.sum() for row in one.counted)), global_batch_size=2,
    )  # fmt: skip
    assert loss.item() == pytest.approx(expected)


def test_mini_batches_of_one_and_of_two_workers():
    assert mini_batches(8, 8, 1) == [list(range(8))]
    assert mini_batches(8, 4, 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert mini_batches(8, 4, 2) == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_the_workers_see_the_masks_and_nobody_else_does():
    with installed():
        original = nested([torch.ones(2, dtype=torch.long), torch.ones(3, dtype=torch.long)])
        fields = TensorDict({"response_mask": original}, batch_size=2)
        batch = tq.kv_batch_put(keys=["a", "b"], partition_id="train", fields=fields, tags=[{}, {}])
        one = LossMask.of(original)
        one.leave_out([1], [[0, 1]])

        def seen(name: str) -> list[list[int]]:
            data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=batch.fields)
            return rows(data[name].unbind())

        with one.applied(batch):
            assert seen("response_mask") == seen("loss_mask") == [[1, 1], [0, 0, 0]]
        assert seen("response_mask") == seen("loss_mask") == [[1, 1], [1, 1, 1]]
