"""Trains the tiny base model of a recipe (tiny.py, which every run asks whether there is anything to do)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from Verl.base_models.demonstrations import demonstrations
from Verl.base_models.tiny_recipe import MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, Recipe
from Verl.base_models.tokenizer import build_tokenizer
from Verl.base_models.warm_start import pass_at_1, warm_start
from Verl.data.arithmetic import draw_splits

_PACKAGES = ("torch", "transformers", "tokenizers", "reasoning-gym")


def build_into(folder: Path, recipe: Recipe, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, save to the empty `folder`, measure; return the facts for the record."""
    tokenizer = build_tokenizer(recipe.context)
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 50 == 0 or step == recipe.steps:
            say(f"step {step}/{recipe.steps}  loss {loss:.3f}  {time.monotonic() - started:.0f} s")

    with _reproducible(recipe):
        model = new_model(recipe, tokenizer)
        warm_start(
            model,
            tokenizer,
            demonstrations(recipe.seed, recipe.step_share),
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            peak_lr=recipe.peak_lr,
            report=report,
        )
        # Any questions of the reinforcement learning half will do; these are the ones of the default data set.
        questions = draw_splits(seed=0)["validation"]
        start = pass_at_1(model, tokenizer, questions, max_new_tokens=MAX_RESPONSE_TOKENS, seed=recipe.seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "versions": {package: version(package) for package in _PACKAGES},
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "validation_pass_at_1": start,
        "max_prompt_length": MAX_PROMPT_TOKENS,
        "max_response_length": MAX_RESPONSE_TOKENS,
    }


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """An untrained model. Embeddings are tied: verl's FSDP2 then loads it without meta tensors."""
    tokens = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            max_position_embeddings=recipe.context,
            initializer_range=recipe.initializer_range,
            rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
            tie_word_embeddings=True,
            dtype=torch.float32,
            **tokens,
        )
    )
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **tokens)
    return model


@contextmanager
def _reproducible(recipe: Recipe) -> Iterator[None]:
    """Fix the seed, the threads and the algorithms; put the process back as it was afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)
