"""Token generation with a Hugging Face causal language model: what `rollout.name=hf` decodes with.

Not `model.generate`: it has no seed per request, prefills a prompt once per rollout, and carries every ended sequence
to the end of the batch. Here

* a prompt shared by n requests is prefilled once and its key-value rows are copied to the n;
* every request draws its tokens from its own random stream (`seed`), one uniform number per token through the inverse
  of the cumulative distribution, so what it says does not depend on its neighbours, and two arms that ask for the same
  (query, rollout) share their random numbers;
* rows that have ended leave the batch as soon as they are a fifth of it.

Shapes: R rows still decoding, V vocabulary, T tokens so far (prompt, left-padded, plus response).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

_COMPACT_BELOW = 0.8  # drop ended rows once fewer than this share of the batch is still decoding
_PREFILL_TOKENS = 8192  # prompt tokens (padding included) per prefill pass: bounds the peak of the attention scores


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


class _RowLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer allocated once; all rows write the same column (left-padding)."""

    is_sliding = False
    is_compileable = False

    def __init__(self, columns: int):
        super().__init__()
        self.columns, self.used = columns, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor | None = None) -> None:
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.columns, width)
        self.values = value_states.new_empty(rows, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows_R: torch.Tensor) -> None:
        # Only the used columns are worth copying.
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(len(rows_R), *old.shape[1:])
            new[:, :, : self.used] = old[rows_R, :, : self.used]
            setattr(self, name, new)

    def get_seq_length(self, *args) -> int:
        return self.used

    def get_max_cache_shape(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length, *args) -> tuple[int, int]:
        length = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.used + length, 0


class _RowCache(Cache):
    def __init__(self, layers: int, columns: int):
        super().__init__(layers=[_RowLayer(columns) for _ in range(layers)])

    def keep(self, rows_R: torch.Tensor) -> None:
        for layer in self.layers:
            layer.keep(rows_R)


def _random_numbers(request: Request) -> np.ndarray:
    """Uniform numbers in (0, 1], one per token. Philox is counter-based: cheap to open for every request."""
    bits = np.random.Philox(request.seed) if request.seed is not None else np.random.PCG64()
    return (1.0 - np.random.Generator(bits).random(request.max_tokens)).astype(np.float32).clip(min=2.0**-32)


def processed_log_probs(
    logits_RV: torch.Tensor, temperature_R: torch.Tensor, top_k_R: torch.Tensor, top_p_R: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of the distribution that tokens are drawn from; -inf where top_k or top_p cut a token off.

    A temperature of 0 (greedy) leaves the logits unscaled: the drawn token is the largest, its log-probability the
    model's own.
    """
    scaled_RV = logits_RV.float() / torch.where(temperature_R > 0, temperature_R, 1.0)[:, None]
    vocabulary = scaled_RV.shape[1]
    if bool(((top_k_R > 0) & (top_k_R < vocabulary)).any()):
        k_R = torch.where(top_k_R > 0, top_k_R, vocabulary).clamp(max=vocabulary)
        smallest_R1 = scaled_RV.sort(dim=1, descending=True).values.gather(1, (k_R - 1)[:, None])
        scaled_RV = scaled_RV.masked_fill(scaled_RV < smallest_R1, -torch.inf)
    if bool((top_p_R < 1).any()):
        sorted_RV, order_RV = scaled_RV.sort(dim=1, descending=True)
        probs_RV = sorted_RV.softmax(dim=1)
        # A token stays if the mass before it is still below p; the likeliest always stays.
        cut_RV = (probs_RV.cumsum(dim=1) - probs_RV) >= top_p_R[:, None]
        cut_RV[:, 0] = False
        scaled_RV = scaled_RV.masked_fill(cut_RV.scatter(1, order_RV, cut_RV), -torch.inf)
    return scaled_RV.log_softmax(dim=1)


def draw(log_probs_RV: torch.Tensor, uniform_R: torch.Tensor, greedy_R: torch.Tensor) -> torch.Tensor:
    """The token where the cumulative probability first reaches u, or the likeliest where greedy.

    With u in (0, 1] a token of probability 0 can't be drawn: the cumulative sum does not grow there.
    """
    cumulative_RV = log_probs_RV.exp().cumsum(dim=1)
    target_R1 = uniform_R[:, None] * cumulative_RV[:, -1:]
    sampled_R = torch.searchsorted(cumulative_RV, target_R1).squeeze(1).clamp(max=log_probs_RV.shape[1] - 1)
    if bool(greedy_R.any()):
        sampled_R = torch.where(greedy_R, log_probs_RV.argmax(dim=1), sampled_R)
    return sampled_R


class Decoder:
    """Decodes batches of requests with one model.

    Args:
        model: a causal language model with attention that takes a 4-D boolean mask (sdpa).
        eos_ids: end tokens.
        max_rows: most rows decoded at once; more requests are taken in several batches.
    """

    def __init__(self, model: PreTrainedModel, eos_ids: Sequence[int], max_rows: int):
        self.model, self.max_rows = model.eval(), max_rows
        self.eos = torch.tensor(sorted(eos_ids), dtype=torch.long)
        self._layers = model.config.get_text_config().num_hidden_layers

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completions in the order of the requests. Requests with the same prompt should be neighbours."""
        done: list[Completion] = []
        for start in range(0, len(requests), self.max_rows):
            done += self._generate_batch(requests[start : start + self.max_rows])
        return done

    def _prefill(self, prompts: list[Sequence[int]], width: int, columns: int):
        """Left-padded prompts P through the model once: cache, visible columns and next-token logits per prompt."""
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        visible = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            visible[row, width - len(prompt) :] = True
        caches, logits = [], []
        chunk = max(1, _PREFILL_TOKENS // width)
        for start in range(0, len(prompts), chunk):
            rows = slice(start, start + chunk)
            cache = _RowCache(self._layers, width)
            output = self.model(
                input_ids=ids[rows],
                attention_mask=None if bool(visible[rows].all()) else visible[rows],
                position_ids=(visible[rows].cumsum(1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            caches.append(cache)
            logits.append(output.logits[:, -1])
        whole = _RowCache(self._layers, columns)
        for index, layer in enumerate(whole.layers):
            layer.update(
                torch.cat([cache.layers[index].keys for cache in caches]),
                torch.cat([cache.layers[index].values for cache in caches]),
            )
        return whole, visible, torch.cat(logits)

    def _generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        prompt_rows = {tuple(r.prompt_ids): 0 for r in requests}
        prompt_rows = {prompt: row for row, prompt in enumerate(prompt_rows)}
        width = max(len(prompt) for prompt in prompt_rows)
        longest = max(r.max_tokens for r in requests)
        columns = width + longest
        cache, visible_PT, logits_PV = self._prefill(list(prompt_rows), width, columns)
        rows_R = torch.tensor([prompt_rows[tuple(r.prompt_ids)] for r in requests])
        cache.keep(rows_R)
        visible_RT = torch.ones(len(requests), columns, dtype=torch.bool)
        visible_RT[:, :width] = visible_PT[rows_R]
        return _Batch(self, requests, cache, visible_RT, width).run(logits_PV[rows_R], longest)


class _Batch:
    """The decoding loop of one batch: which rows are alive, and what each has said."""

    def __init__(self, decoder: Decoder, requests: Sequence[Request], cache: _RowCache, visible_RT, width: int):
        self.decoder, self.requests, self.cache, self.width = decoder, requests, cache, width
        self.done = [Completion() for _ in requests]
        self.row_R = torch.arange(len(requests))  # which request a row belongs to
        self.visible_RT = visible_RT
        self.all_visible = bool(visible_RT.all())
        self.position_R = visible_RT[:, :width].sum(1)
        self.temperature_R = torch.tensor([float(r.temperature) for r in requests])
        self.top_k_R = torch.tensor([r.top_k for r in requests])
        self.top_p_R = torch.tensor([float(r.top_p) for r in requests])
        self.limit_R = torch.tensor([r.max_tokens for r in requests])
        self.eos_R = torch.tensor([not r.ignore_eos for r in requests])
        longest = int(self.limit_R.max())
        self.uniform = torch.ones(len(requests), longest)
        for row, request in enumerate(requests):
            self.uniform[row, : request.max_tokens] = torch.from_numpy(_random_numbers(request))
        self.tokens = torch.zeros(len(requests), longest, dtype=torch.long)
        self.log_probs = torch.zeros(len(requests), longest)
        self.alive_R = torch.ones(len(requests), dtype=torch.bool)
        self.has_stops = any(r.stop_sequences for r in requests)

    def run(self, logits_RV: torch.Tensor, longest: int) -> list[Completion]:
        for step in range(longest):
            token_R = self._draw(logits_RV, step)
            self._end(token_R, step)
            if not bool(self.alive_R.any()):
                break
            if self.alive_R.float().mean() < _COMPACT_BELOW:
                token_R = self._compact(token_R)
            logits_RV = self._forward(token_R, step)
        return self.done

    def _draw(self, logits_RV: torch.Tensor, step: int) -> torch.Tensor:
        log_probs_RV = processed_log_probs(logits_RV, self.temperature_R, self.top_k_R, self.top_p_R)
        token_R = draw(log_probs_RV, self.uniform[self.row_R, step], self.temperature_R == 0)
        self.tokens[self.row_R, step] = token_R
        self.log_probs[self.row_R, step] = log_probs_RV.gather(1, token_R[:, None]).squeeze(1)
        return token_R

    def _end(self, token_R: torch.Tensor, step: int) -> None:
        """Closes the rows that just ended; a row stops at an end token, a stop sequence or its length limit."""
        stopped_R = torch.isin(token_R, self.decoder.eos) & self.eos_R
        if self.has_stops:
            stopped_R |= torch.tensor([self._hits_stop(int(row), step) for row in self.row_R])
        ended_R = self.alive_R & (stopped_R | (self.limit_R == step + 1))
        for position in ended_R.nonzero().flatten().tolist():
            row = int(self.row_R[position])
            self.done[row] = Completion(
                token_ids=self.tokens[row, : step + 1].tolist(),
                log_probs=self.log_probs[row, : step + 1].tolist(),
                stop_reason="completed" if bool(stopped_R[position]) else "length",
            )
        self.alive_R &= ~ended_R

    def _hits_stop(self, row: int, step: int) -> bool:
        said = self.tokens[row, : step + 1].tolist()
        return any(said[-len(stop) :] == list(stop) for stop in self.requests[row].stop_sequences)

    def _compact(self, token_R: torch.Tensor) -> torch.Tensor:
        keep_R = self.alive_R.nonzero().flatten()
        self.cache.keep(keep_R)
        for name in ("row_R", "visible_RT", "position_R", "temperature_R", "top_k_R", "top_p_R", "limit_R", "eos_R"):
            setattr(self, name, getattr(self, name)[keep_R])
        self.alive_R = torch.ones(len(keep_R), dtype=torch.bool)
        return token_R[keep_R]

    def _forward(self, token_R: torch.Tensor, step: int) -> torch.Tensor:
        columns = self.width + step + 1
        output = self.decoder.model(
            input_ids=token_R[:, None],
            attention_mask=None if self.all_visible else self.visible_RT[:, None, None, :columns],
            position_ids=self.position_R[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position_R = self.position_R + 1
        return output.logits[:, -1]
