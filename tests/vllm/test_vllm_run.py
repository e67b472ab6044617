"""Three GRPO steps with verl's own vLLM server on a CPU, started with dummy weights as on an A100: what it then says it
can only have from the weight sync, and every step's answers must come from that step's weights."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

from tests.runs.harness import ROOT, Mini, Result

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


SETTINGS = [
    "actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.load_format=dummy", "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.actor.optim.lr=1e-2", f"trainer.total_training_steps={STEPS}", "trainer.save_freq=1",
    f"trainer.test_freq={STEPS}", "evaluation.val_freq=-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(mini) -> Result:
    result = mini.run("grpo", "vllm", *SETTINGS)
    assert result.status == 0, result.output
    return result


@pytest.fixture(scope="module")
def listening() -> set[str]:
    """Where the killed run listened, once it ran."""
    return set()


@pytest.fixture(scope="module")
def resumed(mini, listening) -> Result:
    """Killed after step 2, and started again."""
    status = mini.kill_after("grpo", "killed", 2, *SETTINGS, look=lambda process: listening.update(mini.listening(process)))
    assert status == -9 and not mini.wait_until_clean(60), "processes were left behind"
    before = mini.result("killed", status, "").records
    result = mini.run("grpo", "killed", *SETTINGS)
    assert result.status == 0, result.output
    assert result.records[:2] == before[:2], "it began anew: timings are not the same twice"
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


def test_a_run_listens_on_this_machine_only(resumed, listening):
    """Ray, torch's store, vLLM's server and the queues between them."""
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_killed_run_goes_on_with_the_weights_it_had(mini, resumed):
    assert [record["step"] for record in resumed.records] == list(range(STEPS + 1))
    for step in range(2, STEPS + 1):
        assert _gap(mini, resumed, step, resumed.weights(step - 1)) < GAP


GREEDY = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":  # vLLM starts its processes from this file
    llm = LLM(sys.argv[1], dtype="float32", max_model_len=64, enforce_eager=True, kv_cache_memory_bytes=2**28)
    prompts = [{"prompt_token_ids": ids} for ids in json.loads(sys.argv[2])]
    done = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=6))
    print(json.dumps([list(one.outputs[0].token_ids) for one in done]))
"""


def test_vllm_loads_an_export_and_answers_as_transformers_does(mini, run):
    folder = mini.folder / "exported"
    arguments = ["--model", str(run.folder), "--step", str(STEPS), "--out", str(folder)]
    done = subprocess.run(["bash", "Running-Bash/export.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    model, tokenizer = Qwen2ForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = pd.read_parquet(mini.folder / "data/test.parquet").to_dict("records")[:8]
    prompts = [
        tokenizer.apply_chat_template(list(row["prompt"]), add_generation_prompt=True, return_dict=False) for row in rows
    ]
    expected = [
        model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=6)[0, len(ids) :].tolist() for ids in prompts
    ]
    script = mini.folder / "greedy.py"
    script.write_text(GREEDY)
    command = [sys.executable, str(script), str(folder), json.dumps(prompts)]
    environment = mini.environment() | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[["))) == expected
