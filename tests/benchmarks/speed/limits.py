"""What no loop on this machine can beat: the floating-point operations that the work needs, at the rate its cores multiply."""

from __future__ import annotations

import statistics
import time

import torch

from tests.benchmarks.speed.bare import Bare
from tests.benchmarks.speed.work import Work


def matmul_rate(size: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations a second of a large fp32 matrix product, with as many threads as the contenders have."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds)


def count(model: Bare, work: Work) -> dict[str, float]:
    """Floating-point operations of the reference's forward pass and of forward and backward (twice the forward), prompts
    carried once: matrix products of every token, attention over the pairs that see each other, logits of response tokens.
    """
    matrices = sum(w.numel() for layer in model.layers for w in (layer.qkv, layer.out, layer.gate_up, layer.down))
    prompt, inner = work.prompt, work.response - 1  # the last token of a response is no input
    tokens = work.queries * prompt + work.sequences * inner
    pairs = work.queries * prompt * (prompt + 1) / 2 + work.sequences * inner * (prompt + (inner + 1) / 2)
    attention = 4 * len(model.layers) * model.heads * model.width * pairs
    logits = 2 * model.embedding.numel() * work.response_tokens
    forward = 2 * matrices * tokens + attention + logits
    return {"tokens": tokens, "ref": forward, "update_actor": 3 * forward}
