"""A request for a response and the response to it, as every engine that generates takes and gives them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One response to draw.

    Args:
        prompt_ids: token ids of the whole prompt, at least one.
        max_tokens: upper bound on the response's length, at least 1.
        seed: stream of random numbers of this request; None draws a fresh one.
        temperature: 0 means greedy.
        top_k: keep the k likeliest tokens; -1 or 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p.
        stop_sequences: token id sequences that end the response; they stay in it, as an end token does.
        ignore_eos: decode to max_tokens whatever is sampled (for benchmarks of equal work).
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    seed: int | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    stop_sequences: Sequence[Sequence[int]] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("prompt_ids is empty: a request needs at least one prompt token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")


@dataclass
class Completion:
    """A response: its tokens (the end token included), their log-probabilities under the distribution they were drawn
    from (temperature, top_k and top_p applied, as vLLM's `processed_logprobs`), and why it ended."""

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stop_reason: str = "length"


def end_tokens(tokenizer: Any, generation_config: Any) -> set[int]:
    """The tokens that end a response: the tokenizer's end token and those of the model's generation_config, as in vLLM
    (0.24.0, SamplingParams.update_from_generation_config). The two differ in many published models."""
    found: set[int] = set()
    for source in (tokenizer, generation_config):
        ids = getattr(source, "eos_token_id", None)
        found |= set(ids) if isinstance(ids, list | tuple) else set() if ids is None else {ids}
    return found
