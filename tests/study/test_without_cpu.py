"""The study does not need the CPU engine: in a copy of the tree without Verl/cpu, all that a GPU user sees still works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Of each kind (estimators, data, rewards, statistics, report) what goes through most of the code: that no other module names
# the package, nor imports it, is seen below.
TESTS = (
    "tests/trainer/test_core_algos.py", "tests/trainer/test_reward_history.py", "tests/trainer/test_policy_losses.py",
    "tests/data/test_data_schema.py", "tests/data/test_arithmetic.py", "tests/reward/test_reward_manager.py",
    "tests/statistics/test_compare_with.py",
    "tests/analysis/test_report.py::test_the_page_says_what_was_found_with_its_numbers",
)  # fmt: skip

# What `bash run_<...>.sh --dry-run` prints the config of, for every script of a pair that is planned on a GPU.
DRY_RUNS = """
from Verl.design.declared import load
from Verl.study.shipped import prepare
from Verl.trainer.verl_checks import check_with_verl

study = load()
on_gpu = {name for name, machine in study.machines.items() if "memory_gib" in machine}
scripts = [script for script, (_, pair) in study.scripts.items() if pair.machine in on_gpu]
for script in scripts:
    check_with_verl(prepare(script, ["trainer.device=cuda"]).config)
print("checked", len(scripts))
"""
# The trainers of a GPU are there, whole, and so is every other module.
TRAINERS = """
import importlib, pkgutil
import Verl
from Verl.adapter.device import device_for
from Verl.trainer.ppo import ray_trainer_bandit, ray_trainer_grpo, ray_trainer_replay

device_for("cuda").load()
for module in pkgutil.walk_packages(Verl.__path__, "Verl."):
    importlib.import_module(module.name)
"""
CPU = """
from Verl.errors import UserError
from Verl.adapter.device import device_for

try:
    device_for("cpu")
except UserError as error:
    print(error)
"""
# `pip install -e .` finds in the repository what the copy lacks.
NOT_INSTALLED = """
import sys

sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in getattr(one, "__module__", "")]
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory, root) -> Path:
    folder = tmp_path_factory.mktemp("without_cpu")
    for name in ("Verl", "Running-Bash", "Dataset", "tests", "docs"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
    for path in root.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    (folder / "Running-Results").symlink_to(root / "Running-Results")
    shutil.rmtree(folder / "Verl" / "cpu")
    (folder / "sitecustomize.py").write_text(NOT_INSTALLED)
    return folder


def run(tree: Path, *command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    environment |= {"PYTHONPATH": str(tree), "BANDIT_VENV": sys.prefix, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tree, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_every_gpu_script_still_prepares_its_run(tree):
    assert int(run(tree, "-c", DRY_RUNS).split()[-1]) >= 132  # 22 arms for six pairs


@pytest.mark.slow
def test_the_trainers_are_whole(tree):
    run(tree, "-c", TRAINERS)


@pytest.mark.slow
@pytest.mark.long
def test_estimators_data_rewards_statistics_and_report_still_pass(tree):
    run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)


def test_a_run_on_a_cpu_is_refused_in_one_sentence(tree):
    assert run(tree, "-c", CPU) == "trainer.device=cpu needs the package Verl.cpu, which is not here: take cuda\n"


def test_nothing_but_the_door_names_the_package(root):
    named = {
        str(path.relative_to(root))
        for suffix in ("py", "yaml")
        for path in root.glob(f"Verl/**/*.{suffix}")
        if "Verl.cpu" in path.read_text() and "cpu" not in path.relative_to(root).parts
    }
    # The door; which manager draws a CPU's rollouts; and what of verl is replaced where.
    assert named == {"Verl/adapter/device.py", "Verl/trainer/config/device/cpu.yaml", "Verl/adapter/interface.py"}
