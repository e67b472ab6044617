"""What sharing the stem of a batch's prompts saves: the same passes with and without it, in turn, in one process.

    python -m tests.benchmarks.stem [--rounds 3] [--rollouts 1 4]

The model has SmolLM2-135M's shape and random weights; 32 prompts of 137 common and 21 own tokens, as the data set `largest`
has them, responses of 3 tokens. Prefill is what a rollout begins with, update a forward and a backward pass over the batch
(no optimizer). Medians of the rounds, in seconds. Two minutes on two quiet cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from Verl import cores
from Verl.adapter.hf.decoder import Decoder
from Verl.cpu import shared_prefix

SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "tie_word_embeddings": True, "attn_implementation": "sdpa",
}  # fmt: skip
QUERIES, STEM, OWN, RESPONSE = 32, 137, 21, 3


def batch(rollouts: int) -> tuple[list[torch.Tensor], list[torch.Tensor], list[int]]:
    """Prompts, responses, and which prompt each response answers."""
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(3, SHAPE["vocab_size"], (length,), generator=draw)

    stem = ids(STEM)
    prompts = [torch.cat([stem, ids(OWN)]) for _ in range(QUERIES)]
    return prompts, [ids(RESPONSE) for _ in range(QUERIES * rollouts)], [row // rollouts for row in range(QUERIES * rollouts)]


def update(model: LlamaForCausalLM, rollouts: int) -> None:
    layout = shared_prefix.Layout.of(*batch(rollouts))
    model.zero_grad()
    log_probs, _ = shared_prefix.response_log_probs(shared_prefix.forward_logits(model, model.config, layout), layout)
    log_probs.mean().backward()


@torch.inference_mode()
def prefill(model: LlamaForCausalLM, rollouts: int) -> None:
    decoder, prompts = Decoder(model, [2], max_rows=64), [ids.tolist() for ids in batch(rollouts)[0]]
    decoder.prefill(prompts, decoder.stem(prompts))


def seconds(work: Callable[[LlamaForCausalLM, int], None], *arguments) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def without_a_stem():
    """Both users of `stem_length` are told that there is none."""
    return mock.patch.multiple("Verl.adapter.stem", FEWEST=2**31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rollouts", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    torch.set_num_threads(cores.threads())
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).float()
    print(f"torch {torch.__version__}, {cores.threads()} threads, medians of {options.rounds} rounds")
    print("| pass | rollouts | each prompt whole, s | stem once, s | ratio |\n|---|---|---|---|---|")
    for work in (prefill, update):
        for rollouts in options.rollouts if work is update else options.rollouts[:1]:
            work(model, rollouts)  # warm
            once, whole = [], []
            for _ in range(options.rounds):
                once.append(seconds(work, model, rollouts))
                with without_a_stem():
                    whole.append(seconds(work, model, rollouts))
            a, b = statistics.median(whole), statistics.median(once)
            print(f"| {work.__name__} | {rollouts} | {a:.2f} | {b:.2f} | {a / b:.1f} |", flush=True)


if __name__ == "__main__":
    main()
