"""The floor does the work it claims: its numbers are the model's, and sharing prompts changes none of them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.benchmarks.speed import bare, limits, work
from tests.benchmarks.speed.loop import Loop


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    work.build_model(path, "2x32x48")
    if request.param == "llama":
        torch.manual_seed(1)
        LlamaForCausalLM(
            LlamaConfig(vocab_size=262, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
                        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
        ).save_pretrained(path)  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(path)
    for name, weight in model.named_parameters():
        if "self_attn" in name:  # as they come, random weights attend to everything alike: an error would not show
            weight.data.mul_(10)
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("rollouts", [1, 3])
def test_shared_prompts_give_the_models_log_probs_and_gradients(folder, rollouts):
    torch.manual_seed(rollouts)
    prompts, responses = torch.randint(6, 262, (2, 9)), torch.randint(6, 262, (2 * rollouts, 5))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.cat([prompts.repeat_interleave(rollouts, 0), responses], 1)
    wanted = plain(ids).logits[:, 8:-1].log_softmax(-1).gather(2, responses[..., None]).squeeze(2)
    gradients = []
    for forward in (bare.unshared, bare.shared):
        model = bare.Bare(folder, grad=True)
        logp = forward(model, prompts, responses)
        torch.testing.assert_close(logp, wanted, atol=1e-5, rtol=0)
        logp.sum().backward()
        gradients.append([weight.grad for weight in model.parameters()])
    wanted.sum().backward()
    torch.testing.assert_close(gradients[0][0], plain.model.embed_tokens.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_rollout_draws_from_the_models_distribution(folder, monkeypatch):
    noise = torch.rand(6, 6, 262, generator=torch.Generator().manual_seed(0)).log().neg().log().neg()
    calls = iter(range(6))
    # Gumbel noise of our own in place of the random draw, so that the plain model can be asked for the same tokens.
    monkeypatch.setattr(torch, "multinomial", lambda p, _: (p.log() + noise[next(calls)]).argmax(-1, keepdim=True))
    model = bare.Bare(folder, grad=False)
    model.norm.mul_(20)  # a random model is nearly uniform: sharper, it shows where it looks
    prompts = torch.randint(6, 262, (2, 9), generator=torch.Generator().manual_seed(1))
    out = bare.rollout(model, prompts, 3, 6)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain.model.norm.weight.data.mul_(20)
    logp = plain(torch.cat([prompts.repeat_interleave(3, 0), out], 1)).logits[:, 8:-1].log_softmax(-1)
    assert torch.equal(out, (logp + noise.transpose(0, 1)).argmax(-1))


def test_a_step_of_the_loop_moves_the_policy_only(folder):
    row = work.Work("test", queries=4, rollouts=4, prompt=9, response=5, micro=8)
    torch.manual_seed(0)
    loop = Loop(row, torch.randint(6, 262, (4, 9)).tolist(), folder)
    before = [weight.clone() for weight in loop.reference.parameters()]
    for way in ("unshared", "shared"):
        seconds = loop.step(way)
        assert seconds["step"] == pytest.approx(sum(seconds[k] for k in ("gen", "ref", "update_actor")))
    torch.testing.assert_close(before, loop.reference.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.policy.parameters()))


def test_prompts_have_the_exact_length(tmp_path):
    work.build_model(tmp_path, "1x32x32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = work.exact_prompts(tokenizer, 40, 20)
    assert len(set(texts)) == 20
    assert {len(work.prompt_ids(tokenizer, text)) for text in texts} == {40}


def test_operations_are_those_of_the_shared_tokens(tmp_path):
    work.build_model(tmp_path, "1x32x32")
    model = bare.Bare(tmp_path, grad=False)
    # q, k, v: 32 x (32 + 16 + 16); out 32 x 32; gate, up, down 3 x 32 x 32; 2 operations a weight and token
    row = work.Work("test", queries=1, rollouts=2, prompt=4, response=3)
    counted = limits.count(model, row)
    assert counted["tokens"] == 4 + 2 * 2
    attention = 4 * 32 * (4 * 5 / 2 + 2 * (5 + 6))
    assert counted["ref"] == 2 * (32 * 64 + 32 * 32 + 3 * 32 * 32) * 8 + attention + 2 * 262 * 32 * 6
    assert counted["update_actor"] == 3 * counted["ref"]
