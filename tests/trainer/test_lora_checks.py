"""LoRA's settings: what is refused before the start, and what the memory plan reckons."""

import pytest

from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import settings
from Verl.trainer.lora_checks import LAYERS, adapted_layers
from Verl.trainer.memory import ModelSize, memory

SCRIPT, MODEL = "run_grpo_0032_8_qwen0.5b_gsm.sh", "actor_rollout_ref.model"
RANK = f"{MODEL}.lora_rank=8"


def prepared(*typed):
    return shipped.prepare(SCRIPT, list(typed)).config


@pytest.mark.parametrize(
    "typed, says",
    [
        ([f"{MODEL}.lora_rank=-1"], "at least 0"),
        ([f"{MODEL}.lora_rank=2.5"], "whole number"),
        ([RANK, f"{MODEL}.lora_alpha=0"], "at least 1"),
        ([f"{MODEL}.lora_alpha=32"], "lora_rank above 0"),  # changes nothing
        ([f"{MODEL}.target_modules=[q_proj]"], "lora_rank above 0"),
        ([RANK, f"{MODEL}.target_modules=[lm_head]"], "all-linear, or a list"),
        ([RANK, f"{MODEL}.target_modules=q_proj"], "all-linear, or a list"),
        ([RANK, f"{MODEL}.exclude_modules=q_proj"], "target_modules"),
        ([RANK, f"{MODEL}.lora_adapter_path=/adapter"], "merge_and_unload"),
        ([RANK, f"{MODEL}.lora.merge=false"], "merged"),
        ([f"{MODEL}.lora.rank=8"], "lora_rank"),
    ],
)
def test_refused(typed, says):
    with pytest.raises(UserError, match=says):
        prepared(*typed)


def test_what_is_adapted():
    assert adapted_layers(prepared(RANK)) == list(LAYERS)
    assert adapted_layers(prepared(RANK, f"{MODEL}.target_modules=[q_proj,v_proj]")) == ["q_proj", "v_proj"]


def test_adapters_by_hand():
    """Two layers; h 8, heads 2 x 4, key-value heads 1 x 4, i 16; rank 3."""
    size = ModelSize("small", 2, 8, 16, 2, 1, 4, 100, True, 64)
    assert size.adapters(3, ["q_proj"]) == 2 * 3 * (8 + 8)
    assert size.adapters(3, ["k_proj", "down_proj"]) == 2 * 3 * ((8 + 4) + (16 + 8))


def test_several_gpus_share_weights_gradients_and_optimizer():
    size = ModelSize.of(settings.about("model", "qwen0.5b"))
    one, four = (memory(size, prepared(f"trainer.n_gpus_per_node={n}"), 39.39, 2.0) for n in (1, 4))
    assert (four.weights, four.gradients, four.optimizer) == (one.weights / 4, one.gradients / 4, one.optimizer / 4)
    assert (four.logits, four.gathered, four.vllm) == (one.logits, one.gathered, one.vllm)


def test_the_plan_has_adapters_gradients_only():
    size = ModelSize.of(settings.about("model", "qwen0.5b"))
    full, lora = (memory(size, prepared(*typed), 39.39, 2.0) for typed in ([], [RANK]))
    assert lora.gradients == pytest.approx(full.gradients * size.adapters(8, LAYERS) / size.parameters)
    assert lora.optimizer == 2 * lora.gradients and full.optimizer == 2 * full.gradients
    assert full.weights < lora.weights < 1.02 * full.weights
    saved = full.gradients + full.optimizer - lora.gradients - lora.optimizer - (lora.weights - full.weights)
    assert full.update - lora.update == pytest.approx(saved)
