"""Three factors in one command, from `--vary` to the table, on the mini pair; killed in the middle and started again."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.harness import ROOT, paused_after, wait_for

pytestmark = pytest.mark.slow

STEPS = 4
VARY = ["algorithm.norm_adv_by_std_in_grpo=true,false", "actor_rollout_ref.actor.kl_loss_coef=0.001,0.1",
        "actor_rollout_ref.rollout.n=2,8"]  # fmt: skip


def command(mini, folder: Path, *study: str, steps: int = STEPS) -> list[str]:
    data = {"train": "train", "val": "validation", "test": "test"}
    settings = [f"data.{key}_files={mini.folder}/data/{split}.parquet" for key, split in data.items()]
    settings += [
        f"actor_rollout_ref.model.path={mini.folder}/model", f"reward.custom_reward_function.path={mini.folder}/reward.py",
        "actor_rollout_ref.actor.optim.lr=1e-3", "data.max_response_length=12", "trainer.total_epochs=50",
        "trainer.save_freq=1", f"trainer.test_freq={steps}", f"evaluation.val_freq={steps}", "evaluation.final_samples=1",
    ]  # fmt: skip
    place = ["--result", str(folder), "--poll", "0.1"]
    start = ["bash", str(ROOT / "Running-Bash/run_study.sh"), "--pair", "tiny_arith", "--base", "grpo_0032_8", "--seeds", "0"]
    return [*start, "--steps", str(steps), *study, *place, "--", *settings]


def three(mini, folder: Path) -> list[str]:
    return command(mini, folder, *(text for one in VARY for text in ("--vary", one)), "--name", "three")


def environment(mini) -> dict[str, str]:
    """Without this process's own of verl's platform: the script makes its own."""
    kept = {name: value for name, value in mini.environment().items() if not name.startswith("VERL_")}
    return kept | {"BANDIT_VENV": sys.prefix, "PYTHONPATH": "", "PYTEST_CURRENT_TEST": ""}


def steps_of(folder, run: str) -> list[int]:
    path = folder / f"{run}.jsonl"
    return [int(step) for step in re.findall(r'"step": (\d+),', path.read_text())] if path.is_file() else []


def kill_in_the_second_run(mini, folder: Path) -> dict[str, int]:
    """Start the study and kill it; returns when each of its runs' metrics was last written, if it was finished."""
    first = subprocess.Popen(three(mini, folder), cwd=ROOT, env=environment(mini), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)  # fmt: skip
    table = folder / "study_three.json"
    wait_for(table.is_file, first)
    runs = [run["run"] for run in json.loads(table.read_text())["runs"]]
    with paused_after(1, first, folder / f"{runs[1]}.jsonl"):
        os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not mini.wait_until_clean(), "kill -9 of the study left processes behind"
    assert steps_of(folder, runs[1])[-1] < STEPS and not steps_of(folder, runs[2])
    return {runs[0]: (folder / f"{runs[0]}.jsonl").stat().st_mtime_ns}


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_three_factors_end_to_end(mini, killed):
    """Whether it was killed before or not; test_study_cli.py kills a study of runs that train nothing."""
    folder = mini.folder / f"vary-{killed}"
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    done = kill_in_the_second_run(mini, folder) if killed else {}
    second = subprocess.run(three(mini, folder), cwd=ROOT, env=environment(mini), capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    for run, written in done.items():
        assert (folder / f"{run}.jsonl").stat().st_mtime_ns == written, "what was done is run again"
    assert f"4 runs, {len(done)} done already, {4 - len(done)} to do" in second.stdout
    assert (" is there)" in second.stdout) == killed  # the step that it goes on from
    runs = [run["run"] for run in json.loads((folder / "study_three.json").read_text())["runs"]]
    assert len(runs) == 4 and all(steps_of(folder, run) == list(range(STEPS + 1)) for run in runs)
    hashes = [json.loads((folder / run / "run.json").read_text())["config_hash"] for run in runs]
    assert len(set(hashes)) == 4
    arms = ("grpo_0032_8", "grpo_0032_8_nostd", "grpo_0032_8_kl_loss_coef-0.1", "grpo_0032_2")
    assert all(f"\n{arm} " in second.stdout for arm in arms)
    assert {path.suffix for path in (folder / "study_three").glob("three.*")} == {".md", ".pdf", ".png"}
    after = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    assert after == changed, "a file of the repository was edited"


@pytest.mark.long
def test_tuned_and_crossed_are_the_same_four_runs(mini):
    """`--tune` runs them; `--cross` of the same two keys finds them done, and both say what they found."""
    n, lr = "actor_rollout_ref.rollout.n=8,2", "actor_rollout_ref.actor.optim.lr"
    said = {}
    for name, more in {"tuned": ["--tune", f"{lr}=1e-4,1e-3"], "crossed": ["--vary", f"{lr}=1e-4,1e-3", "--cross"]}.items():
        study = command(mini, mini.folder / "vary", "--vary", n, *more, "--name", name, steps=2)
        study = [text for text in study if not text.startswith(f"{lr}=1e-3") or "," in text]
        done = subprocess.run(study, cwd=ROOT, env=environment(mini), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        said[name] = done.stdout
    assert "4 runs" in said["tuned"] and "the tuning cost 4 runs, 8 steps" in said["tuned"]
    assert "4 runs, 4 done already, 0 to do" in said["crossed"]
    assert "n 8 -> 2 x lr 1e-4 -> 1e-3" in said["crossed"]  # their interaction
    for name in said:
        assert {path.suffix for path in (mini.folder / f"vary/study_{name}").iterdir()} >= {".md", ".pdf", ".png"}
