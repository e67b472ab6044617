"""Attention part by part against one softmax over all that a token may see."""

import pytest
import torch

from Verl.cpu.shared_attention import Attention, Padding
from Verl.cpu.shared_prefix import Layout

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def test_even_rows_in_order_are_a_view():
    padding = Padding.of(torch.tensor([3, 3]), first=2)
    x = torch.arange(8 * 1 * 2.0).view(8, 1, 2)
    filled = padding.fill(x)
    assert padding.even and filled.data_ptr() == x[2:].data_ptr()
    torch.testing.assert_close(filled, x[2:].view(2, 3, 1, 2).transpose(1, 2))
    torch.testing.assert_close(padding.flat(filled), x[2:])


def test_ragged_rows_by_hand():
    padding = Padding.of(torch.tensor([1, 3]), first=1)
    x = torch.tensor([9.0, 1, 2, 3, 4]).view(5, 1, 1)
    assert not padding.even
    assert padding.fill_gradient(x)[:, 0, :, 0].tolist() == [[1, 0, 0], [2, 3, 4]]
    filled = padding.fill(x)[:, 0, :, 0]
    assert filled[0, 0] == 1 and filled[1].tolist() == [2, 3, 4]
    assert padding.flat(padding.fill(x)).flatten().tolist() == [1, 2, 3, 4]


def test_rows_may_be_made_of_tokens_that_lie_apart():
    # The tokens 0 1 2 3 4 belong to the rows b a b a b.
    padding = Padding.of(torch.tensor([2, 3]), order=torch.tensor([1, 3, 0, 2, 4]))
    x = torch.arange(5.0).view(5, 1, 1)
    assert padding.fill_gradient(x)[:, 0, :, 0].tolist() == [[1, 3, 0], [0, 2, 4]]
    assert padding.flat(padding.fill(x)).flatten().tolist() == [0, 1, 2, 3, 4]


def seen_by(stem, prompt_lengths, response_lengths, prompt_of) -> torch.Tensor:
    """(N, N), whether the row's token i may see token j."""
    owner, place = [("stem", 0, None)] * stem, [*range(stem)]
    for number, length in enumerate(prompt_lengths):
        owner += [("prompt", number, number)] * (length - stem)
        place += range(length - stem)
    for number, length in enumerate(response_lengths):
        owner += [("response", number, prompt_of[number])] * (length - 1)
        place += range(length - 1)
    seen = torch.zeros(len(owner), len(owner), dtype=torch.bool)
    for i, (kind, number, prompt) in enumerate(owner):
        for j, other in enumerate(owner):
            own = other[:2] == (kind, number) and place[j] <= place[i]
            before = other[0] == "stem" and kind != "stem"
            seen[i, j] = own or before or (kind == "response" and other[:2] == ("prompt", prompt))
    return seen


def plainly(query, key, value, seen, scale):
    per = HEADS // KEY_HEADS
    key, value = (x.repeat_interleave(per, dim=1) for x in (key, value))
    scores = torch.einsum("ihd,jhd->hij", query, key) * scale
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize(
    ("stem", "prompts", "responses", "prompt_of"),
    [
        (0, [4], [3], [0]),
        (0, [4, 4], [3, 3, 3, 3], [0, 0, 1, 1]),  # even, in order
        (0, [2, 5, 1], [1, 4, 2, 6], [2, 0, 2, 1]),  # ragged, in no order, one of a single token
        (0, [3, 3], [4, 4, 5], [0, 0, 0]),  # a prompt that nobody answers
        (0, [3, 2], [1, 1], [0, 1]),  # no response has a token that is an input
        (0, [300, 40], [90, 3, 70, 300], [0, 1, 0, 1]),  # longer than the kernel's blocks
        (9, [12, 14, 10], [1, 4, 2, 6], [2, 0, 2, 1]),  # all prompts begin alike
        (8, [9, 9], [1, 1], [0, 1]),  # and have one token of their own, which no response's input follows
        (600, [640, 700], [90, 3, 70, 300], [0, 1, 0, 1]),
    ],
)
def test_outputs_and_gradients_are_those_of_one_softmax(stem, prompts, responses, prompt_of):
    torch.manual_seed(0)
    tokens = [torch.cat([torch.zeros(stem, dtype=torch.long), torch.full((n - stem,), i)]) for i, n in enumerate(prompts, 1)]
    layout = Layout.of(tokens, [torch.ones(n, dtype=torch.long) for n in responses], prompt_of)
    count = len(layout.input_ids_N)
    inputs = [torch.randn(count, heads, WIDTH, dtype=torch.float64) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    weight = torch.randn(count, HEADS, WIDTH, dtype=torch.float64)
    seen = seen_by(stem, prompts, responses, prompt_of)
    found = []
    for compute in (lambda *x: Attention.apply(*x, layout.parts, 0.3), lambda *x: plainly(*x, seen, 0.3)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = compute(*leaves)
        (output * weight).sum().backward()
        found.append([output.detach(), *(x.grad for x in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
