"""The last layer works for the tokens that are read, and they come out as if it had worked for all."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from Verl.adapter.hf import last_layer
from Verl.adapter.hf.decoder import Decoder, Stem

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 40, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "attn_implementation": "sdpa",
}  # fmt: skip
KEPT = torch.tensor([2, 5, 6])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).float()


@pytest.fixture
def worked(model) -> dict[str, list[int]]:
    """Tokens that come out of each projection, layer by layer, in the passes of a test."""
    counts: dict[str, list[int]] = {}

    def count(name):
        return lambda module, inputs, output: counts.setdefault(name, []).append(output.shape[:-1].numel())

    for number, layer in enumerate(model.model.layers):
        for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj"):
            layer.get_submodule(name).register_forward_hook(count(f"{number}.{name}"))
    return counts


def ids(rows: int = 1, tokens: int = 8) -> torch.Tensor:
    return torch.arange(2, 2 + rows * tokens).view(rows, tokens) % 40


def test_tokens_that_are_read_are_the_same_and_so_are_their_gradients(model):
    weight = torch.randn(2, len(KEPT), 40)

    def logits_and_gradients():
        model.zero_grad()
        logits = model(input_ids=ids(2), logits_to_keep=KEPT).logits
        (logits * weight).sum().backward()
        return logits.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    whole, whole_gradients = logits_and_gradients()
    with last_layer.only(model, KEPT):
        part, part_gradients = logits_and_gradients()
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(part_gradients, whole_gradients)


def test_only_the_last_layer_does_less_and_it_keeps_every_key(model, worked):
    with last_layer.only(model, KEPT):
        model(input_ids=ids())
    assert worked == {
        "0.self_attn.k_proj": [8], "0.self_attn.o_proj": [8], "0.mlp.down_proj": [8],
        "1.self_attn.k_proj": [8], "1.self_attn.o_proj": [3], "1.mlp.down_proj": [3],
    }  # fmt: skip


def test_prefill_asks_the_last_layer_for_one_token_a_prompt(model, worked):
    Decoder(model, [1], 4).prefill([[2, 3, 4], [5, 6, 7, 8, 9]], Stem())
    assert worked["0.mlp.down_proj"] == [10]
    assert worked["1.mlp.down_proj"] == [2]


def test_the_model_is_given_back_even_after_an_error(model, worked):
    with pytest.raises(RuntimeError, match="no such"), last_layer.only(model, KEPT):
        raise RuntimeError("no such thing")
    model(input_ids=ids())
    assert worked["1.mlp.down_proj"] == [8]


def test_experts_work_for_all_tokens():
    torch.manual_seed(0)
    sizes = SIZES | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes)).float().eval()
    whole = model(input_ids=ids(), logits_to_keep=KEPT).logits
    seen = []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    with last_layer.only(model, KEPT):
        torch.testing.assert_close(model(input_ids=ids(), logits_to_keep=KEPT).logits, whole)
    assert seen == [8]
