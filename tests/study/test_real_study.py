"""Two arms on two seeds with the real trainer, through run_study.sh as a user starts it."""

import json
import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_arms_on_two_seeds(tmp_path: Path, root: Path):
    command = ["bash", str(root / "Running-Bash/run_study.sh"), "--pair", "tiny_arith", "--arms", "grpo_0032_1",
               "onerpo_0032_1_7", "--seeds", "0", "1", "--steps", "2", "--host", "--result", str(tmp_path), "--",
               f"run.figure_dir={tmp_path / 'Figure'}", "evaluation.train_questions=16", "evaluation.val_questions=16",
               "evaluation.test_questions=16"]  # fmt: skip
    # Not this process's platform settings: the scripts make their own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = json.loads((tmp_path / "study_tiny_arith.json").read_text())
    assert [run["state"] for run in table["runs"]] == ["done"] * 4
    for run in table["runs"]:
        lines = [json.loads(line) for line in (tmp_path / f"{run['run']}.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 1, 2]
        assert json.loads((tmp_path / run["run"] / "run.json").read_text())["seed"] == run["seed"]
    first = {run["run"]: run["seconds"] for run in table["runs"]}

    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and "4 done already, 0 to do" in again.stdout
    assert {run["run"]: run["seconds"] for run in json.loads((tmp_path / "study_tiny_arith.json").read_text())["runs"]} == first
