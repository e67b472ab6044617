"""A script of the GPU grid itself, rehearsed on a CPU with vLLM: real GSM8K, a pretrained model, killed, resumed, exported and
evaluated, each by the command that a user types. With BANDIT_GSM8K=<folder of GSM8K's files>; 8 minutes on two cores, 22
beside two other runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.runs.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.vllm]

SOURCE = os.environ.get("BANDIT_GSM8K")
SCRIPT = "Running-Bash/run_grpo_0032_8_qwen0.5b_gsm.sh"
ENVIRONMENT = {**os.environ, "BANDIT_VENV": sys.prefix}  # scripts run in the environment that the tests run in
STEPS = 3
# Of the model, the size of a step and of its evaluation; algorithm, rollouts and all else are the script's.
SMALL = [
    "model=smollm135m", "data.train_batch_size=4", "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.load_format=dummy", "data.max_response_length=64", f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=1", f"trainer.test_freq={STEPS}", "evaluation.val_freq=-1", "evaluation.test_questions=4",
    "evaluation.final_samples=1", "trainer.device=cpu",
]  # fmt: skip


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    if SOURCE is None:
        pytest.skip("BANDIT_GSM8K is not set: it names the folder of GSM8K's published files")
    folder = tmp_path_factory.mktemp("grid")
    run(sys.executable, "Dataset/gsm8k/prepare.py", "--source", SOURCE, "--out", str(folder / "data"))
    files = {"train_files": "train", "val_files": "validation", "test_files": "test"}
    given = [f"data.{key}={folder}/data/{split}.parquet" for key, split in files.items()]
    return [*given, f"run.result_dir={folder}/result", f"run.figure_dir={folder}/figure", *SMALL]


def result(settings: list[str]) -> Path:
    return Path(next(text for text in settings if text.startswith("run.result_dir=")).partition("=")[2])


def kill_after(step: int, settings: list[str]) -> None:
    with open(result(settings).with_name("killed.console"), "w") as console:
        command = ["bash", SCRIPT, *settings]
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=console, stderr=console, start_new_session=True
        )
        deadline = time.monotonic() + 900
        while not any(f'"step": {step},' in path.read_text() for path in result(settings).glob("*.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline, Path(console.name).read_text()[-3000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_script_of_the_grid_from_its_start_to_an_evaluated_export(settings, tmp_path):
    kill_after(2, settings)
    (jsonl,) = result(settings).glob("*.jsonl")
    before = jsonl.read_text().splitlines()[:2]
    said = run("bash", SCRIPT, *settings)
    lines = jsonl.read_text().splitlines()
    assert lines[:2] == before, "it began anew: timings are not the same twice"
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(STEPS + 1)), said
    for record in records[1:]:
        assert record["training/rollout_probs_diff_max"] < 0.05  # of a probability: bf16 on one side, float32 on the other
    folder = jsonl.with_suffix("")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    answers = pd.concat(pd.read_parquet(path) for path in (folder / "samples").glob("*.parquet"))
    assert answers.groupby(["step", "index"]).size().eq(8).all() and answers["step"].nunique() == STEPS

    exported, evaluated = tmp_path / "exported", tmp_path / "evaluated"
    run("bash", "Running-Bash/export.sh", "--model", str(folder), "--out", str(exported))
    test_set = next(text for text in settings if text.startswith("data.test_files=")).partition("=")[2]
    asked = ["--limit", "4", "--max-response-length", "64", "--device", "cpu"]
    run("bash", "Running-Bash/eval.sh", "--model", str(exported), "--data", test_set, "--out", str(evaluated), *asked)
    assert len(pd.read_parquet(evaluated / "responses.parquet")) == 4
