"""The default pair learns where it should and does not where it must not. A few dozen steps each, on the real scripts."""

import json
import time

import pytest

from tests.runs.harness import ROOT
from Verl.study.hosts import HostedPlaces

pytestmark = pytest.mark.slow

# script: steps after which the sampled test Pass@1 has gained 0.15 on its start of 0.45. In the committed study they gained
# 0.18 to 0.29, 0.20 to 0.27 and 0.32 to 0.36 by step 20 (512 questions: one standard error is 0.02).
BASE_LINE = "run_grpo_0032_1_tiny_arith.sh"
LEARNS = {
    BASE_LINE: 30,
    "run_onerpo_0032_1_7_tiny_arith.sh": 25,
    "run_asyttgrpo_0064_4_8_tiny_arith.sh": 15,
}
MUST_NOT = {
    "run_grpo_0032_8_control_lr0_tiny_arith.sh": 3,
    "run_grpo_0032_8_control_random_tiny_arith.sh": 12,
}


@pytest.fixture(scope="module")
def host():
    places = HostedPlaces(1, print)
    yield places
    places.close()


def run(host: HostedPlaces, script: str, steps: int, folder) -> list[dict]:
    settings = [f"trainer.total_training_steps={steps}", f"run.result_dir={folder}", f"run.figure_dir={folder}",
                "evaluation.val_freq=-1", "evaluation.final_samples=1", "samples.enable=False"]  # fmt: skip
    console = folder / "console"
    environment = {"BANDIT_THREADS": "1", "PYTHONPATH": "", "PYTEST_CURRENT_TEST": ""}
    place = host.start(["bash", str(ROOT / "Running-Bash" / script), *settings], environment, console)
    deadline = time.monotonic() + 900
    while (status := place.poll()) is None:
        assert time.monotonic() < deadline, console.read_text()
        time.sleep(0.1)
    assert status == 0, console.read_text()
    jsonl = next(folder.glob("*.jsonl"))
    return [json.loads(line) for line in jsonl.read_text().splitlines()]


def gain(records: list[dict]) -> float:
    return records[-1]["eval/test/pass@1"] - records[0]["eval/test/pass@1"]


@pytest.mark.parametrize("script", [pytest.param(one, marks=[pytest.mark.long][: one != BASE_LINE]) for one in LEARNS])
def test_learns(script, host, tmp_path):
    records = run(host, script, LEARNS[script], tmp_path)
    assert gain(records) > 0.15
    # It learns to write the steps: responses grow.
    assert records[-1]["train/response_length_mean"] > 1.5 * records[1]["train/response_length_mean"]


@pytest.mark.parametrize("script", MUST_NOT)
def test_does_not_learn(script, host, tmp_path):
    records = run(host, script, MUST_NOT[script], tmp_path)
    assert gain(records) < 0.1
    if "lr0" in script:
        assert all(abs(record["actor/kl_loss"]) < 1e-9 for record in records[1:])
