"""Attention over a row that holds each prompt once: who attends to whom, and each pair of them once.

The row is [stem | rests of the prompts | responses], all end to end (shared_prefix.py). Its attention has these parts:

    1. the stem, the prompts' rests, the responses, each to itself     causal
    2. responses to their prompt's rest                                 the queries of all responses of a prompt at once
    3. all that follows the stem to the stem                            where there is one

A response's token needs one softmax over all parts. With l = log sum exp(scores) of a part and o its output,

    l = log(exp(l1) + exp(l2)),    o = exp(l1 - l) o1 + exp(l2 - l) o2,

and a part's gradient is what flash attention's backward pass gives when it is handed the joint o and l instead of the
part's own (Dao et al. 2022, arXiv:2205.14135, algorithm 4: nothing else of the softmax enters it; RingAttention, Liu et al.
2023, arXiv:2310.01889, cuts a sequence the same way). So a prompt's keys are neither copied to its responses nor masked.

Shapes: N tokens of the row, H heads, K key-value heads, D width of a head; rows x longest of a rectangle.
"""

from dataclasses import dataclass

import torch

from Verl.adapter.nested import places

# torch's own kernels for a CPU, below scaled_dot_product_attention: that one does not tell the log-sum-exp. They take
# fewer key-value heads than heads as they are, and write (rows, heads, longest, width) with the heads innermost.
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Padding:
    """Between ragged rows, end to end from token `first` on, and a rectangle (rows x longest): `there` fills the rectangle
    with tokens of the whole row (gaps hold any), `back` finds each token, in the row's order, in the rectangle."""

    first: int
    rows: int
    longest: int
    there: torch.Tensor
    back: torch.Tensor
    even: bool  # no gaps and in order: the rectangle is a view

    @classmethod
    def of(cls, lengths: torch.Tensor, first: int = 0, order: torch.Tensor | None = None) -> "Padding":
        """Rows of these lengths.

        Args:
            order: which tokens (counted from `first`) the rows are made of, end to end; by default as they lie.
        """
        rows, longest, total = len(lengths), int(lengths.max()), int(lengths.sum())
        _, place = places(lengths)
        back = torch.repeat_interleave(torch.arange(rows), lengths) * longest + place
        if order is None:
            order = torch.arange(total)
        there = torch.full((rows * longest,), first)
        there[back] = order + first
        found = torch.empty_like(back)
        found[order] = back
        even = len(there) == total and bool((order == torch.arange(total)).all())
        return cls(first, rows, longest, there, found, even)

    def fill(self, x: torch.Tensor) -> torch.Tensor:
        """(N, heads, ...) -> (rows, heads, longest, ...)."""
        x = x[self.first : self.first + len(self.back)] if self.even else x.index_select(0, self.there)
        return x.view(self.rows, self.longest, *x.shape[1:]).transpose(1, 2)

    def fill_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The same with zeros in the gaps: what is there counts for nothing."""
        if self.even:
            return self.fill(x)
        filled = x.new_zeros(self.rows * self.longest, *x.shape[1:])
        filled.index_copy_(0, self.back, x[self.first : self.first + len(self.back)])
        return filled.view(self.rows, self.longest, *x.shape[1:]).transpose(1, 2)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, heads, longest, ...) -> (tokens, heads, ...)."""
        x = x.transpose(1, 2)
        x = x.reshape(self.rows * self.longest, *x.shape[2:])
        return x if self.even else x.index_select(0, self.back)

    @property
    def tokens(self) -> slice:
        return slice(self.first, self.first + len(self.back))


@dataclass(frozen=True)
class Part:
    """Queries that attend to keys, rectangle to rectangle; `hidden` is what is added to the scores, or None."""

    queries: Padding
    keys: Padding
    causal: bool
    hidden: torch.Tensor | None = None

    def _bias(self, query: torch.Tensor) -> torch.Tensor | None:
        return None if self.hidden is None else self.hidden.to(query.dtype)

    def forward(self, query, key, value, scale):
        """Output (tokens, H, D) of the queries, and their log-sum-exp (tokens, H, 1)."""
        output, lse = _forward(
            self.queries.fill(query), self.keys.fill(key), self.keys.fill(value), 0.0, self.causal,
            attn_mask=self._bias(query), scale=scale,
        )  # fmt: skip
        return self.queries.flat(output), self.queries.flat(lse[..., None])

    def backward(self, gradient, query, key, value, output, lse, scale):
        """Gradients of the queries (tokens, H, D), and of keys and values (tokens, K, D)."""
        filled = [self.queries.fill_gradient(gradient), self.queries.fill(query), self.keys.fill(key), self.keys.fill(value)]
        joint = [self.queries.fill(output), self.queries.fill(lse)[..., 0]]
        found = _backward(*filled, *joint, 0.0, self.causal, attn_mask=self._bias(query), scale=scale)
        return [padding.flat(x) for padding, x in zip((self.queries, self.keys, self.keys), found)]


class Attention(torch.autograd.Function):
    """(N, H, D) of queries, and (N, K, D) of keys and values -> (N, H, D), part by part.

    The causal parts come first, and have every token of the row as a query once.
    """

    @staticmethod
    def forward(ctx, query, key, value, parts, scale):
        output = torch.empty_like(query)
        lse = query.new_empty(*query.shape[:2], 1, dtype=torch.promote_types(query.dtype, torch.float32))
        for part in parts:
            tokens = part.queries.tokens
            new, new_lse = part.forward(query, key, value, scale)
            if part.causal:
                output[tokens], lse[tokens] = new, new_lse
                continue
            old, old_lse = output[tokens], lse[tokens]
            joint = torch.logaddexp(old_lse, new_lse)
            old.mul_((old_lse - joint).exp_()).addcmul_(new, (new_lse - joint).exp_())
            old_lse.copy_(joint)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.parts, ctx.scale = parts, scale
        return output

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, output, lse = ctx.saved_tensors
        gradients = [torch.zeros_like(x) for x in (query, key, value)]
        for part in ctx.parts:
            found = part.backward(gradient, query, key, value, output, lse, ctx.scale)
            for whole, padding, x in zip(gradients, (part.queries, part.keys, part.keys), found):
                whole[padding.tokens] += x
        return *gradients, None, None
