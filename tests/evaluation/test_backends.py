"""Backends: which one, and how vLLM's types are mapped (with a stand-in for vLLM, which needs a GPU)."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
from transformers import GenerationConfig

from Verl.adapter.generation import Request
from Verl.errors import UserError
from Verl.evaluation import backends
from Verl.evaluation.backends import CPUBackend, VLLMBackend, choose_device
from Verl.evaluation.models import find_model, load_tokenizer


@pytest.mark.parametrize(
    ("asked", "gpu", "vllm", "expected"),
    [
        ("auto", True, True, "cuda"),
        ("auto", True, False, "cpu"),
        ("auto", False, True, "cpu"),
        ("cpu", True, True, "cpu"),
    ],
)
def test_device(monkeypatch, asked, gpu, vllm, expected):
    monkeypatch.setattr(backends.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(backends, "find_spec", lambda name: vllm or None)
    assert choose_device(asked) == expected


@pytest.mark.parametrize(("gpu", "sentence"), [(False, "no GPU"), (True, "needs vllm")])
def test_cuda_that_is_not_there_is_refused(monkeypatch, gpu, sentence):
    monkeypatch.setattr(backends.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=sentence):
        choose_device("cuda")


def test_response_ends_where_the_generation_config_says(tiny_model):
    source = find_model(str(tiny_model))
    assert CPUBackend(source, load_tokenizer(source), 4).decoder.eos.tolist() == [1]
    config = GenerationConfig.from_pretrained(tiny_model)
    config.eos_token_id = [1, 5]
    before = (tiny_model / "generation_config.json").read_bytes()
    config.save_pretrained(tiny_model)
    try:
        assert CPUBackend(source, load_tokenizer(source), 4).decoder.eos.tolist() == [1, 5]
    finally:
        (tiny_model / "generation_config.json").write_bytes(before)


def test_decoder_says_how_far_it_is(tiny_model):
    source = find_model(str(tiny_model))
    backend, ticks = CPUBackend(source, load_tokenizer(source), 4), []
    for _ in range(2):  # the second call counts from 1 again: no hook is left behind
        backend.generate([Request([5, 6, 7], 4, seed=0, ignore_eos=True)] * 2, ticks.append)
    assert ticks == [1, 2, 3] * 2


@dataclass
class Answer:
    token_ids: tuple
    logprobs: list
    finish_reason: str


class FakeLLM:
    """Answers every prompt with its first token twice."""

    def __init__(self, **settings):
        self.settings, self.parameters = settings, []

    def generate(self, prompts, parameters, use_tqdm):
        self.parameters += parameters
        assert len(prompts) == len(parameters)
        return [
            SimpleNamespace(
                outputs=[
                    Answer(
                        (p["prompt_token_ids"][0],) * 2,
                        [{p["prompt_token_ids"][0]: SimpleNamespace(logprob=-1.0), 99: SimpleNamespace(logprob=-9.0)}]
                        * 2,
                        "length" if p["prompt_token_ids"][0] == 7 else "stop",
                    )
                ]
            )
            for p in prompts
        ]


def test_vllm_requests_and_answers(monkeypatch, tiny_model, tmp_path):
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams, vllm.TokensPrompt = FakeLLM, SimpleNamespace, dict
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    backend = VLLMBackend(find_model(str(tiny_model)), 4, 96, tmp_path)
    assert backend.engine.settings["model"] == str(tiny_model) and backend.engine.settings["max_model_len"] == 96
    done = backend.generate(
        [Request([5, 6], 8, seed=3, temperature=0.5), Request([7], 8, seed=4, temperature=0.0)], None
    )
    assert [(c.token_ids, c.log_probs, c.stop_reason) for c in done] == [
        ([5, 5], [-1.0, -1.0], "completed"),
        ([7, 7], [-1.0, -1.0], "length"),
    ]
    asked = [(p.seed, p.temperature, p.max_tokens, p.top_p, p.top_k) for p in backend.engine.parameters]
    assert asked == [(3, 0.5, 8, 1.0, -1), (4, 0.0, 8, 1.0, -1)]
