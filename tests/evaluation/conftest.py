"""Shared by the evaluation tests: a small arithmetic set, a tiny random model, and a backend with planted answers."""

import io
import re

import pytest
import torch
from rich.console import Console
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from Verl.adapter.generation import Completion
from Verl.base_models.tokenizer import build_tokenizer
from Verl.data.arithmetic import prepare
from Verl.evaluation.settings import EvalSettings


@pytest.fixture(scope="session")
def test_set(tmp_path_factory):
    """Twenty questions of the arithmetic set."""
    folder = tmp_path_factory.mktemp("arithmetic")
    prepare(folder, sizes={"test": 20, "train": 4})
    return folder / "test.parquet"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A random Qwen2 of 30,000 parameters with the character tokenizer, saved as a model folder."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer(128)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Planted:
    """A backend that knows the answer, gives it where `is_right(request)`, and counts its batches."""

    def __init__(self, is_right=lambda request: request.seed % 3 == 0, stop_in_batch=None, mark="#"):
        self.tokenizer = build_tokenizer(128)
        self.is_right, self.stop_in_batch, self.mark, self.batches = is_right, stop_in_batch, mark, 0

    def __call__(self, *arguments):
        return self

    def generate(self, requests, tick):
        self.batches += 1
        if self.batches == self.stop_in_batch:
            raise KeyboardInterrupt
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        expression = re.search(r"[0-9+\-]+(?==)", self.tokenizer.decode(request.prompt_ids)).group()
        value = sum(int(term) for term in re.findall(r"[+-]?\d+", expression))
        text = f"{self.mark}{value if self.is_right(request) else value + 1}"
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]
        return Completion(ids, [-0.25] * len(ids), "completed")


@pytest.fixture
def planted():
    return Planted


@pytest.fixture
def console():
    """Keeps what is written: console.file.getvalue()."""
    return Console(file=io.StringIO(), width=200, markup=False)


@pytest.fixture
def make_settings(test_set, tiny_model, tmp_path):
    """Settings of a small evaluation; give what differs."""

    def make(**changes):
        values = {"model": str(tiny_model), "data": test_set, "out": tmp_path / "out", "device": "cpu", "batch": 8}
        return EvalSettings(**{**values, "max_response_length": 12, **changes})

    return make
