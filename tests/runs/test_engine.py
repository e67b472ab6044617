"""The GPU's engine settings on a CPU, and LoRA: whole runs of three steps, on the shapes of the models that are studied.

What a GPU run does with a batch (device/cuda.yaml: packed sequences, gradient checkpointing, fixed micro batches, an offloaded
reference) against what a CPU run does with it: the same responses, loss and gradient.
"""

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from Verl.adapter.load_checkpoint import load_checkpoint
from Verl.adapter.lora import has_adapters
from Verl.trainer.main_export import main
from Verl.trainer.settings import CONFIG_DIR

pytestmark = pytest.mark.slow

SHAPES = ("qwen2", "llama", "olmo2")
SHORT = [
    "trainer.total_training_steps=3", "trainer.save_freq=3", "trainer.test_freq=-1", "evaluation.val_freq=-1",
    "trainer.val_before_train=false", "actor_rollout_ref.rollout.n=2",
]  # fmt: skip
# Of device/cuda.yaml, what a CPU has not: vLLM and its memory; and LoRA's merge, which is the CPU's own there.
NOT_ON_A_CPU = ("rollout.name", "rollout.load_format", "rollout.gpu_memory_utilization", "model.lora.merge")
# A learning rate of the study's size: a larger one turns bf16's rounding into other weights, and those into other responses.
BF16 = ["actor_rollout_ref.actor.optim.lr=1e-6", "actor_rollout_ref.rollout.dtype=bfloat16"] + [
    f"actor_rollout_ref.{part}.fsdp_config.{setting}"
    for part in ("actor", "ref")
    for setting in ("dtype=bfloat16", "mixed_precision.param_dtype=bf16")
]
RECOMPUTE = "actor_rollout_ref.old_log_probs=recompute"
LORA = ["actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.actor.optim.lr=1e-2"]
LONGER = [*SHORT, "trainer.total_training_steps=4", "trainer.save_freq=2", *LORA]


def as_on_a_gpu() -> list[str]:
    """device/cuda.yaml as settings."""
    found = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif not f"{prefix}{key}".endswith(NOT_ON_A_CPU):
                found.append(f"{prefix}{key}={str(value).lower() if isinstance(value, bool) else value}")

    walk(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "device/cuda.yaml"), resolve=False), "")
    return found


def build(folder, shape):
    """A random two-layer model with the mini pair's tokenizer."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Olmo2Config, Olmo2ForCausalLM

    from Verl.base_models.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(64)
    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "olmo2": (Olmo2Config, Olmo2ForCausalLM)}
    config, model = kinds[shape]
    torch.manual_seed(0)
    model = model(
        config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=shape == "llama", bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def runs(mini):
    """Every run of this file, in the processes of the first."""
    asked = {}
    for shape in SHAPES:
        folder = mini.folder / ("model" if shape == "qwen2" else shape)
        if not folder.exists():
            build(folder, shape)
        model = f"actor_rollout_ref.model.path={folder}"
        for name, settings in (("fp32", []), ("bf16", BF16)):
            asked[f"{shape}-{name}-cpu"] = [*SHORT, model, *settings]
            asked[f"{shape}-{name}-gpu"] = [*SHORT, model, *as_on_a_gpu(), *settings]
    asked["recompute"] = [*SHORT, *as_on_a_gpu(), RECOMPUTE]
    asked["lora"] = LONGER
    checkpoint = mini.folder / "result/engine-lora_seed0/checkpoints/global_step_2"
    asked["lora-resumed"] = [*LONGER, "trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoint}"]
    asked["lora-gpu"] = [*SHORT, *as_on_a_gpu(), *LORA]
    found = mini.together("engine", {name: ("grpo", settings) for name, settings in asked.items()})
    for name, result in found.items():
        assert result.status == 0, f"{name}: {result.output}"
    return found


def agree(ours, theirs, loss, gradient, gap):
    """Two runs of the same steps: bounds on the difference of loss and gradient norm, and on the gap to the rollout."""
    assert list(ours.samples().text) == list(theirs.samples().text)
    for mine, other in zip(ours.records, theirs.records, strict=True):
        assert mine["actor/loss"] == pytest.approx(other["actor/loss"], abs=loss)
        assert mine["actor/kl_loss"] == pytest.approx(other["actor/kl_loss"], abs=loss)
        assert mine["actor/grad_norm"] == pytest.approx(other["actor/grad_norm"], rel=gradient) and mine["actor/grad_norm"] > 0
        assert mine["actor/entropy"] == pytest.approx(other["actor/entropy"], abs=max(loss, 2e-6))
        for one in (mine, other):
            assert one["training/rollout_probs_diff_mean"] < gap


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gpus_engine_settings_train_as_the_cpus(runs, shape):
    cpu, gpu = runs[f"{shape}-fp32-cpu"], runs[f"{shape}-fp32-gpu"]
    agree(cpu, gpu, loss=1e-7, gradient=1e-6, gap=1e-7)
    assert cpu.metrics() != gpu.metrics()  # they round otherwise: it was another way
    assert all(record["actor/ppo_kl"] == 0 for record in gpu.records)  # the update's own log-probabilities


@pytest.mark.parametrize("shape", SHAPES)
def test_so_do_they_in_bf16_within_its_rounding(runs, shape):
    cpu, gpu = runs[f"{shape}-bf16-cpu"], runs[f"{shape}-bf16-gpu"]
    agree(cpu, gpu, loss=1e-3, gradient=2e-2, gap=1e-2)
    assert gpu.records[-1]["training/rollout_probs_diff_mean"] > 1e-6  # it was bf16


def test_old_log_probs_of_the_update_are_those_computed_before_it(runs):
    """What `old_log_probs: auto` leaves out on a GPU with one update per round."""
    auto, recompute = runs["qwen2-fp32-gpu"], runs["recompute"]
    agree(auto, recompute, loss=1e-7, gradient=1e-6, gap=1e-7)
    assert auto.records[0].keys() == recompute.records[0].keys()


# ---- LoRA -----------------------------------------------------------------------------------------------------------


def test_lora_trains_adapters_and_the_rollout_gets_them(runs, mini):
    result = runs["lora"]
    first, last = result.weights(2), result.weights(4)
    base = AutoModelForCausalLM.from_pretrained(mini.folder / "model").state_dict()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {name for name in first if "lora_" in name}
    assert torch.equal(last["base_model.model.model.layers.0.mlp.up_proj.base_layer.weight"],
                       base["model.layers.0.mlp.up_proj.weight"])  # fmt: skip
    assert result.records[0]["actor/kl_loss"] == 0 < result.records[-1]["actor/kl_loss"]  # the reference has no adapter
    # Every step's responses are drawn with that step's adapters.
    assert all(record["training/rollout_probs_diff_max"] < 1e-6 for record in result.records)


def test_lora_with_the_gpus_engine_settings(runs):
    longer, gpu = runs["lora"], runs["lora-gpu"]
    samples = longer.samples()
    assert list(samples[samples.step <= 3].text) == list(gpu.samples().text)
    for mine, other in zip(longer.records[:3], gpu.records, strict=True):
        for key in ("actor/loss", "actor/kl_loss", "actor/grad_norm"):
            assert mine[key] == pytest.approx(other[key], abs=2e-7, rel=1e-5), key


def test_lora_resumes_to_the_bit(runs):
    whole, resumed = runs["lora"], runs["lora-resumed"]
    ours, theirs = resumed.weights(4), whole.weights(4)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.metrics() == whole.metrics()[2:]


def test_lora_is_exported_merged(runs, tmp_path):
    checkpoint = runs["lora"].folder / "checkpoints/global_step_4"
    out = tmp_path / "model"
    assert main(["--model", str(checkpoint), "--out", str(out)]) == 0
    trained, exported = load_checkpoint(checkpoint), AutoModelForCausalLM.from_pretrained(out).eval()
    assert not has_adapters(exported.state_dict())
    start = load_checkpoint(runs["lora"].folder / "checkpoints/global_step_2")
    prompt = AutoTokenizer.from_pretrained(out)("1+2-3=", return_tensors="pt")
    with torch.no_grad():
        logits = exported(**prompt).logits
        assert torch.equal(logits, trained(**prompt).logits)
        assert not torch.equal(logits, start(**prompt).logits)
