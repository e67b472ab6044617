"""Token generation with a Hugging Face causal language model: what `rollout.name=hf` decodes with.

Not `model.generate`: it has no seed per request, prefills a prompt once per rollout, and carries every ended sequence
to the end of the batch. Here

* a prompt shared by n requests is prefilled once, and its keys and values are read once for all n (row_cache.py); what all
  prompts begin with is prefilled once for all (stem.py);
* rows that have ended make room for requests that wait (continuous batching), so that a long answer holds nobody up;
* every request draws its tokens from its own random stream (`seed`), one uniform number per token through the inverse
  of the cumulative distribution, so what it says does not depend on its neighbours, and two arms that ask for the same
  (query, rollout) share their random numbers;
* rows that have ended leave the batch as soon as they are a fifth of it.

Shapes: R rows being decoded, V vocabulary, G prompts, P columns of the prompts (padded on the left).
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from Verl.adapter.generation import Completion, Request
from Verl.adapter.hf import last_layer
from Verl.adapter.hf.attention import why_attention_is_not_ours
from Verl.adapter.hf.row_cache import ATTENTION, Prompts, RowCache
from Verl.adapter.interface import replaced
from Verl.adapter.stem import stem_length

_COMPACT_BELOW = 0.8  # drop ended rows once fewer than this share of the batch is still decoding
_ADMIT_BELOW = 0.75  # take in requests that wait once this share of max_rows or less is still decoding
_PREFILL_TOKENS = 8192  # prompt tokens (padding included) per prefill pass: bounds the peak of the attention scores


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


def on_device(device: torch.device) -> AbstractContextManager:
    """Tensors that are made meanwhile are made there; on a CPU they are in any case."""
    return nullcontext() if device.type == "cpu" else device


@dataclass(frozen=True)
class Stem:
    """The tokens that all prompts begin with; their keys and values (1, heads, tokens, width), layer by layer."""

    length: int = 0
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()


class Decoder:
    """Decodes requests with one model.

    Args:
        model: a causal language model whose layers attend to everything before, by sdpa.
        eos_ids: end tokens.
        max_rows: most rows decoded at once; further requests wait until rows have ended.

    Raises:
        ValueError: the model attends in another way.
    """

    def __init__(self, model: PreTrainedModel, eos_ids: Sequence[int], max_rows: int):
        reason = why_attention_is_not_ours(model, model.config)
        if reason:
            raise ValueError(f"rollout.name=hf can't decode this model: {reason}; take rollout.name=vllm")
        self.model, self.max_rows = model.eval(), max_rows
        self.eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completions in the order of the requests. Requests with the same prompt should be neighbours."""
        with on_device(self.model.device):
            return _Rows(self, requests).run() if requests else []

    def stem(self, prompts: Iterable[Sequence[int]]) -> Stem:
        """What these prompts begin with, through the model."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        length, cache = stem_length(distinct), DynamicCache()
        if not length:
            return Stem()
        with last_layer.only(self.model, torch.tensor([length - 1])):
            self.model.get_decoder()(input_ids=torch.tensor([distinct[0][:length]]), past_key_values=cache, use_cache=True)
        return Stem(length, tuple((layer.keys, layer.values) for layer in cache.layers))

    def prefill(self, prompts: list[Sequence[int]], stem: Stem) -> tuple[Prompts, torch.Tensor]:
        """What follows the stem of each prompt through the model once, padded on the left; next-token logits (G, V)."""
        known = stem.length
        width = max(len(prompt) for prompt in prompts) - known
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        visible_GP = torch.ones(len(prompts), known + width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            gap = known + width - len(prompt)
            ids[row, gap:] = torch.tensor(prompt[known:])
            visible_GP[row, known : known + gap] = False
        parts, logits = [], []
        chunk = max(1, _PREFILL_TOKENS // (known + width))
        for start in range(0, len(prompts), chunk):
            rows = slice(start, start + chunk)
            count = len(ids[rows])
            cache = DynamicCache()
            for number, layer in enumerate(stem.layers):
                cache.update(*(x.expand(count, -1, -1, -1) for x in layer), number)
            with last_layer.only(self.model, torch.tensor([width - 1])):
                output = self.model(
                    input_ids=ids[rows],
                    attention_mask=None if bool(visible_GP[rows].all()) else visible_GP[rows],
                    position_ids=(visible_GP[rows].cumsum(1) - 1).clamp(min=0)[:, known:],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            parts.append(Prompts([(layer.keys, layer.values) for layer in cache.layers], visible_GP[rows]))
            logits.append(output.logits[:, -1])
        return Prompts.joined(parts), torch.cat(logits)


class _Rows:
    """The rows that are being decoded: which request each belongs to, what it sees, what it has said."""

    def __init__(self, decoder: Decoder, requests: Sequence[Request]):
        self.decoder, self.requests = decoder, requests
        self.stem = decoder.stem(request.prompt_ids for request in requests)
        self.waiting = 0  # the first request that has not been taken in
        self.done = [Completion() for _ in requests]
        # Per request.
        self.temperature = torch.tensor([float(r.temperature) for r in requests])
        self.top_k = torch.tensor([r.top_k for r in requests])
        self.top_p = torch.tensor([float(r.top_p) for r in requests])
        self.limit = torch.tensor([r.max_tokens for r in requests])
        self.heeds_eos = torch.tensor([not r.ignore_eos for r in requests])
        self.has_stops = any(r.stop_sequences for r in requests)
        longest = int(self.limit.max())
        self.uniform = torch.ones(len(requests), longest)
        for row, request in enumerate(requests):
            self.uniform[row, : request.max_tokens] = torch.from_numpy(_random_numbers(request))
        self.tokens = torch.zeros(len(requests), longest, dtype=torch.long)
        self.log_probs = torch.zeros(len(requests), longest)
        # Per row.
        self.cache: RowCache | None = None
        self.request_R = torch.zeros(0, dtype=torch.long)
        self.said_R = torch.zeros(0, dtype=torch.long)  # tokens of the response so far
        self.token_R = torch.zeros(0, dtype=torch.long)  # the last of them, not yet in the cache
        self.position_R = torch.zeros(0, dtype=torch.long)  # of the next token
        self.alive_R = torch.zeros(0, dtype=torch.bool)

    def run(self) -> list[Completion]:
        while True:
            alive = int(self.alive_R.sum())
            if self.waiting < len(self.requests) and alive <= _ADMIT_BELOW * self.decoder.max_rows:
                self._take_in(min(self.decoder.max_rows - alive, len(self.requests) - self.waiting))
            elif not alive:
                return self.done
            elif alive < _COMPACT_BELOW * len(self.alive_R):
                self._lay(None)
            if bool(self.alive_R.any()):
                self._draw(self._forward(), slice(None))

    def _take_in(self, count: int) -> None:
        """The next `count` requests become rows, with their first token drawn."""
        numbers = range(self.waiting, self.waiting + count)
        self.waiting += count
        # One row per prompt goes through the model; its requests share what comes out.
        rows: dict[tuple[int, ...], int] = {}
        prompt_R = torch.tensor([rows.setdefault(tuple(self.requests[n].prompt_ids), len(rows)) for n in numbers])
        prompts, logits_GV = self.decoder.prefill(list(rows), self.stem)
        old = int(self.alive_R.sum())
        self._lay((prompts, prompt_R), int(self.limit[numbers.start : numbers.stop].max()))
        self.request_R = torch.cat([self.request_R, torch.tensor(list(numbers))])
        new = torch.zeros(count, dtype=torch.long)
        self.said_R, self.token_R = torch.cat([self.said_R, new]), torch.cat([self.token_R, new])
        self.position_R = torch.cat([self.position_R, prompts.visible_GP.sum(1)[prompt_R]])
        self.alive_R = torch.cat([self.alive_R, torch.ones(count, dtype=torch.bool)])
        self._draw(logits_GV[prompt_R], slice(old, None))

    def _lay(self, new: tuple[Prompts, torch.Tensor] | None, left: int = 0) -> None:
        """Leaves out the rows that have ended; new ones, with at most `left` tokens to say, below those that go on."""
        keep_R = self.alive_R.nonzero().flatten()
        if len(keep_R):
            left = max(left, int((self.limit[self.request_R] - self.said_R)[keep_R].max()))
        if self.cache is None:
            prompts, prompt_R = new
            self.cache = RowCache(prompts, prompt_R, torch.zeros_like(prompt_R), left)
        else:
            self.cache = self.cache.kept(keep_R, new, left)
        for name in ("request_R", "said_R", "token_R", "position_R"):
            setattr(self, name, getattr(self, name)[keep_R])
        self.alive_R = torch.ones(len(keep_R), dtype=torch.bool)

    def _draw(self, logits_RV: torch.Tensor, rows: slice) -> None:
        """One token for each of the given rows; closes those that it ends."""
        request_R = self.request_R[rows]
        # A row that has ended draws on until it is left out; what it draws is not looked at.
        place_R = self.said_R[rows].clamp(max=self.tokens.shape[1] - 1)
        temperature_R = self.temperature[request_R]
        log_probs_RV = processed_log_probs(logits_RV, temperature_R, self.top_k[request_R], self.top_p[request_R])
        token_R = draw(log_probs_RV, self.uniform[request_R, place_R], temperature_R == 0)
        self.tokens[request_R, place_R] = token_R
        self.log_probs[request_R, place_R] = log_probs_RV.gather(1, token_R[:, None]).squeeze(1)
        self.token_R[rows] = token_R
        self.said_R[rows] += 1
        self._end(rows)

    def _end(self, rows: slice) -> None:
        """A row stops at an end token, a stop sequence or its length limit."""
        request_R, said_R = self.request_R[rows], self.said_R[rows]
        stopped_R = torch.isin(self.token_R[rows], self.decoder.eos) & self.heeds_eos[request_R]
        if self.has_stops:
            stopped_R |= torch.tensor([self._hits_stop(*pair) for pair in zip(request_R.tolist(), said_R.tolist())])
        ended_R = self.alive_R[rows] & (stopped_R | (said_R >= self.limit[request_R]))
        for place in ended_R.nonzero().flatten().tolist():
            number, length = int(request_R[place]), int(said_R[place])
            self.done[number] = Completion(
                token_ids=self.tokens[number, :length].tolist(),
                log_probs=self.log_probs[number, :length].tolist(),
                stop_reason="completed" if bool(stopped_R[place]) else "length",
            )
        self.alive_R[rows] &= ~ended_R

    def _hits_stop(self, number: int, length: int) -> bool:
        said = self.tokens[number, :length].tolist()
        return any(said[-len(stop) :] == list(stop) for stop in self.requests[number].stop_sequences)

    def _forward(self) -> torch.Tensor:
        """Each row's last token into the cache; the logits of its next."""
        with replaced(on=self.decoder.model.config, _attn_implementation=ATTENTION):
            output = self.decoder.model(
                input_ids=self.token_R[:, None],
                attention_mask=None,
                position_ids=self.position_R[:, None],
                past_key_values=self.cache,
                use_cache=True,
                rows=self.cache,
            )
        self.position_R = self.position_R + 1
        return output.logits[:, -1]
