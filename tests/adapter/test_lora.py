"""Adapters merged: as peft merges them, and as verl does on a GPU, where its merge is used."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils.fsdp_utils import merged_lora_context, normalize_peft_param_name

from Verl.adapter.lora import has_adapters, merged

SCALE = 16 / 4


def adapted(**settings):
    """A two-layer model with biases and tied embeddings, and adapters that are not zero."""
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=30, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    settings = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": "all-linear"} | settings
    model = get_peft_model(Qwen2ForCausalLM(config), LoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model


def test_by_hand():
    state = {
        "base_model.model.x.q_proj.base_layer.weight": torch.tensor([[1.0, 2.0]]),
        "base_model.model.x.q_proj.base_layer.bias": torch.tensor([9.0]),
        "base_model.model.x.q_proj.lora_A.default.weight": torch.tensor([[3.0, -1.0]]),
        "base_model.model.x.q_proj.lora_B.default.weight": torch.tensor([[2.0]]),
        "base_model.model.x.norm.weight": torch.tensor([5.0]),
    }
    assert has_adapters(state)
    found = merged(state, 0.5)
    assert found.keys() == {"x.q_proj.weight", "x.q_proj.bias", "x.norm.weight"} and not has_adapters(found)
    assert found["x.q_proj.weight"].tolist() == [[1.0 + 0.5 * 6.0, 2.0 - 0.5 * 2.0]]
    assert found["x.q_proj.bias"].item() == 9.0


def test_as_peft_merges():
    model = adapted()
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    found, theirs = merged(state, SCALE), model.merge_and_unload().state_dict()
    assert found.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


def test_another_kind_of_adapter_is_refused():
    with pytest.raises(ValueError, match="embed"):
        merged(adapted(target_modules=["embed_tokens"]).state_dict(), SCALE)


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_as_verl_merges_for_the_rollout_of_a_gpu_run(mesh):
    """verl 0.9.1 reaches into FSDP2's shards for it; its rounding to bf16 comes after."""
    model = adapted()
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)

    def whole():
        return {name: weight.full_tensor().clone() for name, weight in model.state_dict().items()}

    before = whole()
    with merged_lora_context(model, backup_adapters=True):
        theirs = normalize_peft_param_name(whole())
    found = merged(before, SCALE)
    assert found.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
    assert all(torch.equal(weight, before[name]) for name, weight in whole().items())  # and it is undone
