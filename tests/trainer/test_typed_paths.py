"""A relative path means what it would mean to the shell: a place below the folder it was typed in."""

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from Verl import REPO_ROOT
from Verl.trainer import overrides
from Verl.trainer.typed_paths import resolved


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "my data").mkdir()
    for name in ("train.parquet", "my data/more.parquet", "reward.py"):
        (tmp_path / name).touch()
    (tmp_path / "global_step_4").mkdir()
    return tmp_path


def test_what_is_there_is_found_from_the_users_folder(home):
    typed = ["data.train_files=train.parquet", "reward.custom_reward_function.path=./reward.py",
             "data.test_files=[train.parquet,'my data/more.parquet']", "trainer.resume_from_path=global_step_4/"]  # fmt: skip
    assert resolved(typed, home) == [
        f"data.train_files={home}/train.parquet",
        f"reward.custom_reward_function.path={home}/reward.py",
        f"data.test_files=[{home}/train.parquet,'{home}/my data/more.parquet']",
        f"trainer.resume_from_path={home}/global_step_4",
    ]


def test_what_is_not_there_is_left_to_the_repository_and_the_hub(home):
    typed = ["data.train_files=Dataset/arithmetic/data/train.parquet", "actor_rollout_ref.model.path=Qwen/Qwen2.5-0.5B",
             "reward.custom_reward_function.path=pkg://my.module", "data.train_batch_size=8", "seed=1", "data.val_files=null",
             "run.variant=train.parquet", "data.train_files=/abs/train.parquet", "data.train_files=[unfinished"]  # fmt: skip
    assert resolved(typed, home) == typed


def test_results_go_below_the_users_folder_there_or_not(home):
    assert resolved(["run.result_dir=out/one", "+run.figure_dir=../figures"], home) == [
        f"run.result_dir={home}/out/one", f"+run.figure_dir={home.parent}/figures"]  # fmt: skip


def test_a_place_in_the_repository_reads_as_from_its_root():
    typed = ["run.result_dir=results", "actor_rollout_ref.model.path=trainer"]
    assert resolved(typed, REPO_ROOT / "Verl") == ["run.result_dir=Verl/results", "actor_rollout_ref.model.path=Verl/trainer"]
    assert resolved(["data.train_files=Dataset/prepare.py"], REPO_ROOT) == ["data.train_files=Dataset/prepare.py"]


def test_a_path_of_any_letters_is_taken_as_it_is(home):
    """A shell leaves no quotation marks, and Hydra wants them around some letters."""
    for name in ("ergebnis-ü", "sp ace", "a&b", "d$x", "(1)", "日本", "o'brien", "50%"):
        [text] = resolved([f"run.result_dir={name}"], home)
        assert overrides.read(text) == ("run.result_dir", f"{home}/{name}")


def test_home_is_the_users(monkeypatch, home):
    monkeypatch.setenv("HOME", str(home))
    assert resolved(["data.train_files=~/train.parquet"]) == [f"data.train_files={home}/train.parquet"]


@pytest.mark.slow
def test_a_script_started_elsewhere_reads_paths_from_there_and_its_own_from_the_root(home):
    script = REPO_ROOT / "Running-Bash/run_grpo_0032_8_tiny_arith.sh"
    done = subprocess.run(
        ["bash", str(script), "--dry-run", "run.result_dir=out", "trainer.rollout_data_dir=dumped"],
        cwd=home, env={**os.environ, "BANDIT_CWD": "/wrong"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = OmegaConf.create(done.stdout)
    assert config.run.result_dir == f"{home}/out" and config.trainer.rollout_data_dir == f"{home}/dumped"
    assert config.data.train_files == "Dataset/arithmetic/data/train.parquet"
