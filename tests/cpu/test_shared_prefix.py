"""A shared prompt goes through the model once, and nothing that is computed from it changes."""

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from Verl.cpu import shared_prefix as sp

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 40, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "attn_implementation": "sdpa",
}  # fmt: skip
MODELS = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM),
          "olmo2": (Olmo2Config, Olmo2ForCausalLM)}  # fmt: skip


def build(name: str, **changes):
    torch.manual_seed(0)
    config, model = MODELS[name]
    return model(config(**SIZES, **changes)).float()


def ragged(rng, prompts: int, responses: int, stem: int = 0):
    """Prompts and responses of 1 to 9 tokens, prompts after a stem; every prompt is answered, in no order."""
    ids = [torch.from_numpy(rng.integers(2, 40, rng.integers(1, 10))) for _ in range(prompts + responses)]
    stem_ids = torch.from_numpy(rng.integers(2, 40, stem))
    ids[:prompts] = [torch.cat([stem_ids, torch.tensor([2 + number]), own]) for number, own in enumerate(ids[:prompts])]
    prompt_of = [*range(prompts), *rng.integers(0, prompts, responses - prompts).tolist()]
    rng.shuffle(prompt_of)
    return ids[:prompts], ids[prompts:], prompt_of


def one_by_one(model, prompts, responses, prompt_of):
    """Each response in a row of its own, by the model's own attention."""
    found = []
    for ids, prompt in zip(responses, prompt_of):
        whole = torch.cat([prompts[prompt], ids])[None]
        log_probs = model(input_ids=whole).logits[0].log_softmax(-1)[len(prompts[prompt]) - 1 : -1]
        found.append(log_probs.gather(1, ids[:, None])[:, 0])
    return torch.cat(found)


def shared(model, prompts, responses, prompt_of):
    layout = sp.Layout.of(prompts, responses, prompt_of)
    return sp.response_log_probs(sp.forward_logits(model, model.config, layout), layout)[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stem", [0, 20])
@pytest.mark.parametrize(("groups", "responses"), [(1, 1), (1, 6), (4, 4), (3, 11)])
def test_log_probs_and_gradients_are_those_of_the_unshared_pass(name, groups, responses, stem):
    model = build(name)
    rng = np.random.default_rng(groups * 100 + responses)
    for _ in range(3):
        batch = ragged(rng, groups, responses, stem)
        row = len(sp.Layout.of(*batch).input_ids_N)
        assert row == sum(map(len, batch[0])) + sum(len(ids) - 1 for ids in batch[1]) - stem * (groups - 1)
        ours, theirs = shared(model, *batch), one_by_one(model, *batch)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
        weight = torch.randn(len(ours))
        gradients = []
        for log_probs in (ours, theirs):
            model.zero_grad()
            (log_probs * weight).sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        for mine, other in zip(*gradients):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("stem", [0, 12])
def test_nothing_leaks_between_responses_or_prompts(stem):
    """Another token in one response, or in another prompt, changes no log-probability but its own and what follows."""
    model = build("qwen2")
    prompts, responses, prompt_of = ragged(np.random.default_rng(5), 2, 6, stem)
    responses[2] = torch.tensor([5, 6, 7, 8])
    before = shared(model, prompts, responses, prompt_of).split([len(ids) for ids in responses])
    changed = [ids.clone() for ids in responses]
    changed[2][1] = 30
    after = shared(model, prompts, changed, prompt_of).split([len(ids) for ids in responses])
    for row in range(6):
        if row != 2:
            assert torch.equal(before[row], after[row])
    assert torch.equal(before[2][:1], after[2][:1]) and not torch.equal(before[2][1:], after[2][1:])


def test_entropy_is_that_of_the_distribution_before_each_token():
    model = build("qwen2")
    prompts, responses, prompt_of = ragged(np.random.default_rng(2), 2, 4)
    layout = sp.Layout.of(prompts, responses, prompt_of)
    found = sp.entropy(sp.response_log_probs(sp.forward_logits(model, model.config, layout), layout)[1], layout)
    expected = []
    for ids, prompt in zip(responses, prompt_of):
        logits = model(input_ids=torch.cat([prompts[prompt], ids])[None]).logits[0][len(prompts[prompt]) - 1 : -1]
        expected.append(torch.distributions.Categorical(logits=logits).entropy())
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-5)


def test_empty_rows_are_refused():
    one = torch.tensor([3])
    for prompts, responses in (([one[:0]], [one]), ([one], [one[:0]])):
        with pytest.raises(ValueError, match="at least one token"):
            sp.Layout.of(prompts, responses, [0])


def test_the_models_attention_is_given_back():
    model = build("llama")
    shared(model, [torch.tensor([3, 4])], [torch.tensor([5, 6])], [0])
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError):
        shared(model, [torch.tensor([3, 400])], [torch.tensor([5, 6])], [0])
    assert model.config._attn_implementation == "sdpa"


def test_micro_batches_hold_every_row_once_and_keep_to_their_size():
    rng = np.random.default_rng(0)
    for _ in range(200):
        kinds = [rng.integers(0, 9, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, 6))]
        prompts = [kinds[i] for i in rng.integers(0, len(kinds), 30)]
        lengths = rng.integers(1, 12, 30).tolist()
        most = int(rng.integers(8, 80))
        batches = sp.micro_batches(prompts, lengths, most)
        assert sorted(row for rows in batches for row in rows) == list(range(30))
        for rows in batches:
            tokens = sum(len(p) for p in {tuple(prompts[row]) for row in rows}) + sum(lengths[row] for row in rows)
            assert rows and (tokens <= most or len(rows) == 1)


def test_the_stem_counts_once_in_a_micro_batch():
    stem = [7] * 10  # 14 tokens: stem, own token, 3 of the response; 4 more for each further row
    prompts = [[*stem, 1], [*stem, 2], [*stem, 3]]
    assert sp.micro_batches(prompts, [3, 3, 3], 18) == [[0, 1], [2]]
    assert sp.micro_batches(prompts, [3, 3, 3], 17) == [[0], [1], [2]]


def test_micro_batches_by_hand():
    # 5 responses to a prompt of two tokens, 3 to one of one: a prompt is counted once per batch that has it.
    batches = sp.micro_batches([[1, 2]] * 5 + [[3]] * 3, [3, 4, 1, 2, 9, 2, 2, 2], 10)
    assert batches == [[5, 6, 7], [2, 3, 0], [1], [4]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"attention_dropout": 0.1}, "drops out"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding_attention"),
    ],
)
def test_why_not(changes, reason):
    found = sp.why_not(model := build("qwen2", **changes), model.config)
    assert found is None if reason is None else reason in found


def test_why_not_with_another_attention_or_checkpointing():
    model = build("qwen2")
    model.gradient_checkpointing_enable()
    assert "checkpointing" in sp.why_not(model, model.config)
    model = build("qwen2")
    model.config._attn_implementation = "eager"
    assert "eager" in sp.why_not(model, model.config)
