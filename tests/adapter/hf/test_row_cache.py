"""The decoding step that reads a prompt once for all its rows: equal to plain attention over each row's own sequence."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from Verl.adapter.hf.row_cache import Prompts, RowCache, attention

K, PER, D = 2, 3, 8
MODULE = SimpleNamespace(layer_idx=0)


class Plain:
    """Every row's whole sequence of keys and values, each as its own tensor."""

    def __init__(self):
        self.rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, prompts: Prompts, prompt_R: torch.Tensor) -> None:
        keys, values = prompts.layers[0]
        for prompt in prompt_R.tolist():
            seen = prompts.visible_GP[prompt]
            self.rows.append((keys[prompt][:, seen], values[prompt][:, seen]))

    def keep(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def say(self, query, key, value) -> torch.Tensor:
        out = []
        for row, (keys, values) in enumerate(self.rows):
            keys, values = torch.cat([keys, key[row]], dim=1), torch.cat([values, value[row]], dim=1)
            self.rows[row] = keys, values
            per_head = [x.repeat_interleave(PER, dim=0)[None] for x in (keys, values)]
            out.append(scaled_dot_product_attention(query[row : row + 1], *per_head).transpose(1, 2))
        return torch.cat(out)


def prompts_of(lengths: list[int]) -> Prompts:
    width = max(lengths)
    visible = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    keys, values = (torch.randn(len(lengths), K, width, D, dtype=torch.float64) for _ in range(2))
    return Prompts([(keys, values)], visible)


def check_steps(cache: RowCache, plain: Plain, steps: int) -> None:
    rows = len(cache.prompt_R)
    for _ in range(steps):
        query = torch.randn(rows, K * PER, 1, D, dtype=torch.float64)
        key, value = (torch.randn(rows, K, 1, D, dtype=torch.float64) for _ in range(2))
        keys, values = cache.update(key, value, 0)
        output, _ = attention(MODULE, query, keys, values, None, rows=cache)
        torch.testing.assert_close(output, plain.say(query, key, value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_attention_over_each_row_as_rows_come_and_go(seed):
    torch.manual_seed(seed)
    cache, plain = None, Plain()
    for turn in range(5):
        lengths = torch.randint(1, 9, (int(torch.randint(1, 4, ())),)).tolist()
        prompts = prompts_of(lengths)
        # In any order, and every prompt at least once; the first turn in order, as many of each: nothing to rearrange.
        prompt_R = torch.cat([torch.arange(len(lengths)), torch.randint(0, len(lengths), (turn * 2,))])
        prompt_R = prompt_R[torch.randperm(len(prompt_R))] if turn else torch.arange(len(lengths)).repeat_interleave(3)
        if cache is None:
            cache = RowCache(prompts, prompt_R, torch.zeros_like(prompt_R), columns=4)
        else:
            keep_R = (torch.rand(len(cache.prompt_R)) < 0.6).nonzero().flatten()
            plain.keep(keep_R)
            cache = cache.kept(keep_R, (prompts, prompt_R), left=4)
        plain.add(prompts, prompt_R)
        assert len(cache.prompt_R) == len(plain.rows)
        check_steps(cache, plain, steps=3)
    keep_R = torch.arange(0, len(cache.prompt_R), 2)  # fewer rows and no new ones
    plain.keep(keep_R)
    check_steps(cache.kept(keep_R, None, left=4), plain, steps=2)


def test_prompts_and_columns_that_nobody_sees_are_dropped():
    long, short = prompts_of([9, 9]), prompts_of([2])
    cache = RowCache(long, torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.long), columns=4)
    plain = Plain()
    plain.add(long, torch.tensor([0, 0, 1]))
    check_steps(cache, plain, steps=3)
    later = cache.kept(torch.tensor([2]), (short, torch.tensor([0])), left=4)
    assert later.prompts.visible_GP.shape == (2, 9) and later.used == 3 and later.first_R.tolist() == [0, 3]
    last = later.kept(torch.tensor([1]), None, left=2)
    assert last.prompts.visible_GP.shape == (1, 2)  # the short prompt alone, without the long ones' columns
    assert last.used == 0 and last.first_R.tolist() == [0]  # and nothing of what the others had said
    assert last.prompts.layers[0][0].shape == (1, K, 2, D)
