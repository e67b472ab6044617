"""The decoder of `rollout.name=hf`: the right distribution, seeds per request, limits, stops, no work for the ended."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from Verl.adapter.generation import Request, end_tokens
from Verl.adapter.hf import decoder as decoders
from Verl.adapter.hf.decoder import Decoder, draw, processed_log_probs

EOS = 1


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, attn_implementation="sdpa",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():  # a random model is nearly uniform: sharpen it, so that mistakes in the context show
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture
def decoder(model):
    return Decoder(model, [EOS], max_rows=64)


def forward_log_probs(model, prompt, response, temperature=1.0):
    """What the trainer would compute: one forward pass over prompt and response."""
    ids = torch.tensor([list(prompt) + list(response)])
    with torch.no_grad():
        log_probs = (model(ids).logits[0].float() / temperature).log_softmax(-1)
    return [float(log_probs[len(prompt) - 1 + t, token]) for t, token in enumerate(response)]


PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [4], [5, 6, 7, 8, 9]]
STEM = [2 + 7 * place % 22 for place in range(20)]
WITH_STEM = [STEM + prompt for prompt in PROMPTS]
either = pytest.mark.parametrize("prompts", [PROMPTS, WITH_STEM], ids=["nothing in common", "one stem"])


@either
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_the_trainers(model, decoder, temperature, prompts):
    requests = [
        Request(prompt, max_tokens=12, seed=row, temperature=temperature) for row, prompt in enumerate(prompts * 4)
    ]
    done = decoder.generate(requests)
    for request, completion in zip(requests, done, strict=True):
        expected = forward_log_probs(model, request.prompt_ids, completion.token_ids, temperature)
        assert completion.log_probs == pytest.approx(expected, abs=1e-5)
        assert completion.token_ids[-1] == EOS or len(completion.token_ids) == 12
        assert EOS not in completion.token_ids[:-1]
        assert completion.stop_reason == ("completed" if completion.token_ids[-1] == EOS else "length")


@either
def test_a_request_says_the_same_in_any_company(decoder, prompts):
    requests = [Request(prompts[row % 4], max_tokens=12, seed=row) for row in range(40)]
    together = [c.token_ids for c in decoder.generate(requests)]
    alone = [decoder.generate([request])[0].token_ids for request in requests]
    backwards = [c.token_ids for c in decoder.generate(requests[::-1])][::-1]
    few = Decoder(decoder.model, [EOS], max_rows=7)
    assert together == alone == backwards == [c.token_ids for c in few.generate(requests)]
    assert len({tuple(tokens) for tokens in together}) > 20  # seeds matter


def test_greedy_is_the_likeliest_token(model, decoder):
    done = decoder.generate([Request(prompt, max_tokens=10, temperature=0.0) for prompt in PROMPTS])
    for prompt, completion in zip(PROMPTS, done, strict=True):
        ids = list(prompt)
        for token in completion.token_ids:
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_limits_stops_and_ignored_end(decoder):
    limits = [1, 3, 7, 12]
    done = decoder.generate([Request(PROMPTS[0], max_tokens=limit, seed=3, ignore_eos=True) for limit in limits])
    assert [len(c.token_ids) for c in done] == limits
    assert all(c.token_ids == done[-1].token_ids[: len(c.token_ids)] for c in done)  # one stream, cut at the limit
    said = done[-1].token_ids
    stop = said[4:6]
    first = next(i for i in range(len(said)) if said[i : i + 2] == stop) + 2
    stopped = decoder.generate([Request(PROMPTS[0], max_tokens=12, seed=3, ignore_eos=True, stop_sequences=[stop])])[0]
    assert stopped.token_ids == said[:first] and stopped.stop_reason == "completed"


def test_samples_follow_the_distribution(model, decoder):
    """Chi-square of 6,000 first tokens against the model's probabilities: seeds 0.. are as good as random."""
    count = 6000
    done = Decoder(model, [EOS], max_rows=2000).generate(
        [Request(PROMPTS[1], max_tokens=1, seed=seed) for seed in range(count)]
    )
    with torch.no_grad():
        probs = model(torch.tensor([PROMPTS[1]])).logits[0, -1].softmax(-1).double().numpy()
    seen = np.bincount([c.token_ids[0] for c in done], minlength=len(probs))
    big = probs * count >= 5
    chi2 = ((seen[big] - probs[big] * count) ** 2 / (probs[big] * count)).sum()
    assert chi2 < 2.5 * big.sum(), (chi2, big.sum())  # mean = degrees of freedom; a wrong sampler gives hundreds


def test_top_k_and_top_p():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    one = torch.ones(1)

    def kept(k, p):
        result = processed_log_probs(logits, one, torch.tensor([k]), torch.tensor([p]))
        return [round(x, 4) for x in result.exp()[0].tolist()]

    assert kept(-1, 1.0) == [0.5, 0.3, 0.15, 0.05]
    assert kept(2, 1.0) == [0.625, 0.375, 0.0, 0.0]
    assert kept(-1, 0.8) == [0.625, 0.375, 0.0, 0.0]  # 0.5 + 0.3 reaches 0.8
    assert kept(-1, 0.81) == [0.5263, 0.3158, 0.1579, 0.0]
    assert kept(1, 0.01) == [1.0, 0.0, 0.0, 0.0]  # the likeliest always stays


def test_a_token_of_probability_zero_is_never_drawn():
    log_probs = torch.log(torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])).repeat(5, 1)
    uniform = torch.tensor([2.0**-32, 0.5, 0.500001, 0.999999, 1.0])
    assert draw(log_probs, uniform, torch.zeros(5, dtype=torch.bool)).tolist() == [1, 1, 3, 3, 3]


@pytest.mark.parametrize(
    "wrong", [{"prompt_ids": []}, {"max_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_bad_requests_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Request(**{"prompt_ids": [1], "max_tokens": 1, **wrong})


def test_ended_rows_leave_the_batch(model):
    """A long answer must not drag the others along: count the rows that go through the model."""
    rows = []
    decoder = Decoder(model, [EOS], max_rows=64)
    original = model.forward
    try:
        model.forward = lambda **kwargs: rows.append(len(kwargs["input_ids"])) or original(**kwargs)
        lengths = [2] * 15 + [30]
        decoder.generate([Request(PROMPTS[0], max_tokens=n, seed=n, ignore_eos=True) for n in lengths])
    finally:
        model.forward = original
    assert rows[0] == 1  # one prefill for the prompt that all share
    assert sum(rows[1:]) <= 16 + 28  # 16 rows once, then the long one alone


def test_what_all_prompts_begin_with_is_computed_once(model):
    tokens = []
    layer = model.get_decoder().layers[0]
    hook = layer.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0].shape[:2].numel()))
    try:
        requests = [Request(prompt, max_tokens=1, seed=0) for prompt in WITH_STEM * 4]
        Decoder(model, [EOS], max_rows=4).generate(requests)
    finally:
        hook.remove()
    assert tokens == [len(STEM), *[4 * 7] * 4]  # four times four rows as long as the longest


def test_a_long_answer_holds_nobody_up(model):
    """Continuous batching: requests that wait take the places of those that ended, beside the one that goes on."""
    rows = []
    decoder = Decoder(model, [EOS], max_rows=8)
    limits = [40] + [3, 5] * 20
    requests = [Request(PROMPTS[n % 4], max_tokens=limit, seed=n, ignore_eos=True) for n, limit in enumerate(limits)]
    original = model.forward
    try:
        model.forward = lambda **kwargs: rows.append(kwargs["input_ids"].shape) or original(**kwargs)
        done = decoder.generate(requests)
    finally:
        model.forward = original
    assert [len(c.token_ids) for c in done] == limits
    steps = [shape[0] for shape in rows if shape[1] == 1 and shape[0] <= 8]
    assert max(steps) <= 8
    # 199 tokens in 8 places: in batches of 8, each as long as its longest, it would take 39 + 5 x 4 steps.
    assert len(steps) < 45
    assert [c.token_ids for c in done] == [decoder.generate([request])[0].token_ids for request in requests]


def test_what_memory_held_before_is_not_read(decoder):
    """Short prompts among long ones leave columns that nothing was written to; deterministic mode fills them with NaN."""
    requests = [Request(PROMPTS[n % 4], max_tokens=6 + 3 * (n % 3), seed=n, ignore_eos=True) for n in range(24)]
    expected = [c.token_ids for c in decoder.generate(requests)]
    try:
        torch.use_deterministic_algorithms(True)
        assert torch.empty(1).isnan()
        done = Decoder(decoder.model, [EOS], max_rows=8).generate(requests)
    finally:
        torch.use_deterministic_algorithms(False)
    assert [c.token_ids for c in done] == expected
    assert all(np.isfinite(c.log_probs).all() for c in done)


def test_a_model_that_attends_in_another_way_is_refused(model):
    config = Qwen2Config(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        use_sliding_window=True, sliding_window=8, max_window_layers=1, attn_implementation="sdpa",
    )  # fmt: skip
    with pytest.raises(ValueError, match="sliding.*rollout.name=vllm"):
        Decoder(Qwen2ForCausalLM(config), [EOS], max_rows=4)


def test_no_requests(decoder):
    assert decoder.generate([]) == []


@pytest.mark.parametrize(
    "tokenizer, generation, ends",
    [(3, 5, {3, 5}), (3, [5, 7], {3, 5, 7}), (3, None, {3}), (None, 5, {5}), (3, 3, {3}), (None, None, set())],
)
def test_a_response_ends_at_the_end_token_of_tokenizer_or_model(model, tokenizer, generation, ends):
    tokens = end_tokens(*(SimpleNamespace(eos_token_id=ids) for ids in (tokenizer, generation)))
    assert tokens == ends
    requests = [Request(prompt, max_tokens=30, seed=seed) for prompt in PROMPTS for seed in range(8)]
    for completion in Decoder(model, tokens, max_rows=64).generate(requests):
        assert not ends & set(completion.token_ids[:-1])
        assert (completion.token_ids[-1] in ends) == (completion.stop_reason == "completed")
    assert end_tokens(SimpleNamespace(eos_token_id=3), None) == {3}


class Made(torch.overrides.TorchFunctionMode):
    """Notes the device of every tensor that is made from nothing: what a GPU run would find in the wrong memory."""

    FACTORIES = (torch.tensor, torch.zeros, torch.ones, torch.arange, torch.full, torch.empty)

    def __init__(self):
        super().__init__()
        self.devices = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self.FACTORIES:
            self.devices.append(kwargs.get("device"))
        return function(*args, **kwargs)


def test_every_tensor_that_decoding_makes_is_on_the_models_device(model, monkeypatch):
    """As on a GPU, where a tensor is made in main memory unless it is said otherwise."""
    monkeypatch.setattr(decoders, "on_device", lambda device: device)
    requests = [Request(PROMPTS[row % 4], max_tokens=4 + row, seed=row, stop_sequences=[[7, 8]], top_k=5) for row in range(12)]
    with Made() as made:
        few = Decoder(model, [EOS], max_rows=4)
        done = few.generate(requests)
    assert len(made.devices) > 20 and set(made.devices) == {model.device}
    assert [c.token_ids for c in done] == [c.token_ids for c in Decoder(model, [EOS], max_rows=64).generate(requests)]


def test_in_bf16_attention_weighs_in_32_bits(model):
    """A GPU decodes in bf16: its log-probabilities are those of a pass over the whole, within bf16's rounding."""
    half = Qwen2ForCausalLM.from_pretrained(None, config=model.config, state_dict=model.state_dict(), dtype=torch.bfloat16)
    done = Decoder(half, [EOS], max_rows=64).generate([Request(prompt, 12, seed=row) for row, prompt in enumerate(PROMPTS * 2)])
    gaps = [
        abs(np.exp(ours) - np.exp(theirs))
        for prompt, completion in zip(PROMPTS * 2, done, strict=True)
        for ours, theirs in zip(completion.log_probs, forward_log_probs(half, prompt, completion.token_ids), strict=True)
    ]
    assert 0 < np.mean(gaps) < 0.01
