"""The default pair learns where it should and does not where it must not. A few dozen steps each, on the real scripts."""

import json
import os
import subprocess

import pytest

from tests.runs.harness import ROOT

pytestmark = pytest.mark.slow

# script: steps after which the sampled test Pass@1 has gained 0.15 on its start of 0.45. In the committed study they gained
# 0.18 to 0.29, 0.20 to 0.27 and 0.32 to 0.36 by step 20 (512 questions: one standard error is 0.02).
LEARNS = {
    "run_grpo_0032_1_tiny_arith.sh": 30,
    "run_onerpo_0032_1_7_tiny_arith.sh": 25,
    "run_asyttgrpo_0064_4_8_tiny_arith.sh": 15,
}
MUST_NOT = {
    "run_grpo_0032_8_control_lr0_tiny_arith.sh": 3,
    "run_grpo_0032_8_control_random_tiny_arith.sh": 12,
}


def run(script: str, steps: int, folder) -> list[dict]:
    settings = [f"trainer.total_training_steps={steps}", f"run.result_dir={folder}", f"run.figure_dir={folder}"]
    command = ["bash", str(ROOT / "Running-Bash" / script), *settings, "evaluation.val_freq=-1", "samples.enable=False"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, "BANDIT_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    jsonl = next(folder.glob("*.jsonl"))
    return [json.loads(line) for line in jsonl.read_text().splitlines()]


def gain(records: list[dict]) -> float:
    return records[-1]["eval/test/pass@1"] - records[0]["eval/test/pass@1"]


@pytest.mark.parametrize("script", LEARNS)
def test_learns(script, tmp_path):
    records = run(script, LEARNS[script], tmp_path)
    assert gain(records) > 0.15
    # It learns to write the steps: responses grow.
    assert records[-1]["train/response_length_mean"] > 1.5 * records[1]["train/response_length_mean"]


@pytest.mark.parametrize("script", MUST_NOT)
def test_does_not_learn(script, tmp_path):
    records = run(script, MUST_NOT[script], tmp_path)
    assert gain(records) < 0.1
    if "lr0" in script:
        assert all(abs(record["actor/kl_loss"]) < 1e-9 for record in records[1:])
