"""How to add a model, a data set, an arm, an estimator: what the README's examples say, done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from Verl.data.schema import make_row, write_split_set
from Verl.study import design, memory, shipped

SIZES = {"layers": 2, "hidden": 64, "intermediate": 128, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocabulary": 99,
         "tied": True, "context": 128}  # fmt: skip


def declare(folder: Path, old: str, new: str) -> None:
    """Adds an entry to study.yaml before the line `old`."""
    path = folder / "study.yaml"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, f"{new}{old}"))


def generate(folder: Path, root: Path) -> None:
    command = [sys.executable, str(root / "Running-Bash/generate_scripts.py"), "--folder", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def add_pair(folder: Path, name: str, model: str, data: str) -> None:
    entry = f"  {name}: {{model: {model}, data: {data}, machine: cpu, only: [grpo_0032_1, grpo_0032_8]}}\n"
    declare(folder, "# ---- what the plan reckons with", entry)


def test_a_model_is_one_file_and_two_entries(bash_folder, root, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (bash_folder / "models" / "mine.sh").write_text(
        f"arguments+=(actor_rollout_ref.model.path={checkpoint} trainer.device=cpu)\nprepare_model() {{ :; }}\n"
    )
    declare(bash_folder, "data:   # questions", f"  mine: {json.dumps({'title': 'my model', **SIZES})}\n")
    add_pair(bash_folder, "mine_arith", "mine", "arith")
    generate(bash_folder, root)

    one = shipped.prepare("run_grpo_0032_8_mine_arith.sh", folder=bash_folder)
    assert one.name == "grpo_0032_8_mine_arith_seed0"
    assert one.config.actor_rollout_ref.model.path == str(checkpoint)
    assert not any("model.path" in sentence for sentence in one.missing)
    study = design.load(bash_folder / "study.yaml")
    assert memory.ModelSize.of(study.models["mine"]).parameters > 0
    assert "my model on sums" in (bash_folder / one.script).read_text()


def test_a_data_set_is_one_file_and_two_entries(bash_folder, root, tmp_path):
    splits = {
        split: [
            make_row(data_source="mine/dates", ability="dates", split=split, index=i, answer="", question=f"{split} {i}",
                     prompt=f"What day follows day {start + i}?", ground_truth=str(start + i + 1))
            for i in range(40)
        ]
        for start, split in ((0, "train"), (100, "validation"), (200, "test"))
    }  # fmt: skip
    write_split_set(tmp_path / "dates", splits, source="made up", settings={})
    (tmp_path / "score.py").write_text("def compute_score(data_source, solution_str, ground_truth, extra_info): return 0.0\n")
    files = " ".join(f"data.{key}_files={tmp_path}/dates/{name}.parquet"
                     for key, name in (("train", "train"), ("val", "validation"), ("test", "test")))  # fmt: skip
    (bash_folder / "data" / "dates.sh").write_text(
        f"arguments+=({files} reward.custom_reward_function.path={tmp_path}/score.py)\nprepare_data() {{ :; }}\n"
    )
    declare(bash_folder, "machines:\n", "  dates: {title: dates, train: 40, validation: 40, test: 40}\n")
    add_pair(bash_folder, "tiny_dates", "tiny", "dates")
    generate(bash_folder, root)

    one = shipped.prepare("run_grpo_0032_1_tiny_dates.sh", folder=bash_folder)
    assert one.name == "grpo_0032_1_tiny_dates_seed0"
    assert not any("data." in sentence for sentence in one.missing), one.missing


def test_an_arm_is_one_entry_and_its_factor(bash_folder, root):
    declare(bash_folder, "# ---- factors", "  grpo_0032_8_clip03: {estimator: grpo, queries: 32, rollouts: 8,\n"
            "    variant: clip03, settings: [actor_rollout_ref.actor.clip_ratio=0.3]}\n")  # fmt: skip
    declare(bash_folder, "# Keys that follow", "  clip:\n    title: PPO clip\n    keys: [actor_rollout_ref.actor.clip_ratio]\n"
            "    cells: [grpo_0032_8, grpo_0032_8_clip03]\n")  # fmt: skip
    path = bash_folder / "study.yaml"
    path.write_text(path.read_text().replace("    more: [arpo_0032_8,", "    more: [grpo_0032_8_clip03, arpo_0032_8,"))
    generate(bash_folder, root)

    one = shipped.prepare("run_grpo_0032_8_clip03_tiny_arith.sh", folder=bash_folder)
    assert one.name == "grpo_0032_8_clip03_tiny_arith_seed0"
    assert one.config.actor_rollout_ref.actor.clip_ratio == 0.3
    command = [sys.executable, str(root / "Running-Bash/design.py"), "--folder", str(bash_folder), "diff", "grpo_0032_8",
               "grpo_0032_8_clip03", "--pair", "tiny_arith"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert "one factor: clip (PPO clip)" in done.stdout, done.stdout + done.stderr


def test_a_number_edited_in_a_script_names_the_run(bash_folder):
    path = bash_folder / "run_grpo_0032_8_tiny_arith.sh"
    path.write_text(path.read_text().replace("rollout_n=8", "rollout_n=16"))
    assert shipped.prepare(path.name, folder=bash_folder).name == "grpo_0032_16_tiny_arith_seed0"


@pytest.mark.parametrize("estimator", ["rloo", "opo"])
def test_an_estimator_of_verl_s_is_one_entry(bash_folder, root, estimator):
    declare(bash_folder, "# ---- factors", f"  {estimator}_0032_8: {{estimator: {estimator}, queries: 32, rollouts: 8}}\n")
    path = bash_folder / "study.yaml"
    path.write_text(path.read_text().replace("    more: [arpo_0032_8,", f"    more: [{estimator}_0032_8, arpo_0032_8,"))
    generate(bash_folder, root)
    one = shipped.prepare(f"run_{estimator}_0032_8_tiny_arith.sh", folder=bash_folder)
    assert one.algorithm == "grpo" and one.config.algorithm.adv_estimator == estimator
    assert one.name == f"{estimator}_0032_8_tiny_arith_seed0"
