"""Three GRPO steps with verl's own vLLM server on a CPU, started with dummy weights as on an A100: what it then says it
can only have from the weight sync, and every step's answers must come from that step's weights."""

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

from tests.runs.harness import Mini, Result

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
STEPS = 3
GAP = 1e-3  # mean over a response's tokens of the difference between two log-probabilities


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    mini = Mini(tmp_path_factory.mktemp("vllm"))
    _with_one_wide_head(mini.folder / "model")
    yield mini
    assert not mini.wait_until_clean(), "processes were left behind"
    mini.close()


def _with_one_wide_head(folder):
    """The mini model again with one head of size 32: vLLM's CPU attention has kernels for 32 and up, not for 16."""
    config = AutoConfig.from_pretrained(folder)
    config.num_attention_heads = config.num_key_value_heads = 1
    config.head_dim = 32
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def run(mini) -> Result:
    result = mini.run(
        "grpo", "vllm", "actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.load_format=dummy",
        "actor_rollout_ref.rollout.n=2", "actor_rollout_ref.actor.optim.lr=1e-2",
        f"trainer.total_training_steps={STEPS}", "trainer.save_freq=1", f"trainer.test_freq={STEPS}", "evaluation.val_freq=-1",
    )  # fmt: skip
    assert result.status == 0, result.output
    return result


def _gap(mini, run: Result, step: int, weights: dict[str, torch.Tensor] | None) -> float:
    """Largest gap, over the responses of a step, between vLLM's log-probability per token and that of the given weights."""
    folder = mini.folder / "model"
    model, tokenizer = Qwen2ForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    if weights is not None:
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
        model.tie_weights()
    train = pd.read_parquet(mini.folder / "data/train.parquet")
    prompts = {row["extra_info"]["index"]: list(row["prompt"]) for row in train.to_dict("records")}
    gaps = []
    for row in run.samples().query(f"step == {step}").to_dict("records"):
        prompt = tokenizer.apply_chat_template(prompts[row["index"]], add_generation_prompt=True, return_dict=False)
        ids = torch.tensor([[*prompt, *row["tokens"]]])
        with torch.no_grad():
            log_probs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        ours = log_probs.gather(-1, ids[0, len(prompt) :, None]).sum().item()
        gaps.append(abs(ours - row["log_prob"]) / len(row["tokens"]))
    assert len(gaps) == 16 * 2
    return max(gaps)


def test_the_trainer_and_vllm_agree(run):
    assert [record["step"] for record in run.records[1:]] == list(range(1, STEPS + 1))
    for record in run.records[1:]:
        assert record["actor/grad_norm"] > 0
        assert record["training/rollout_probs_diff_valid"] == 1
        assert record["training/rollout_probs_diff_max"] < GAP


def test_each_step_is_drawn_with_the_weights_of_that_step(mini, run):
    assert _gap(mini, run, 1, None) < GAP, "the first sync"
    for step in range(2, STEPS + 1):
        assert _gap(mini, run, step, run.weights(step - 1)) < GAP
        # The control: with the weights of a step before, there is a gap to see.
        earlier = run.weights(step - 2) if step > 2 else None
        assert _gap(mini, run, step, earlier) > 10 * GAP


def test_evaluation_goes_through_vllm_too(run):
    assert run.records[0]["eval/test/questions"] == 24 and 0 <= run.records[0]["eval/test/pass@1"] <= 1
