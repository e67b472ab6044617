"""A checkpoint of somebody else's is data: no code of theirs runs. Whole runs that resume: tests/runs/test_resume.py."""

import json
import os
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from verl import DataProto

from Verl.adapter import safe_load  # noqa: F401
from Verl.errors import UserError
from Verl.trainer import task_runner
from Verl.trainer.ppo import checkpoints


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def drawn() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_what_verl_reads_is_read_as_data(tmp_path):
    """verl 0.9.1 asks for weights_only=False; its random states, and tensors, load all the same."""
    torch.save(Attack(tmp_path / "ran"), tmp_path / "attack.pt")
    with pytest.raises(Exception, match="[Ww]eights"):
        torch.load(tmp_path / "attack.pt", weights_only=False)
    assert not (tmp_path / "ran").exists()
    states = {"cpu": torch.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()}
    torch.save({"rng": states, "lr_scheduler": {"last_epoch": 3}}, tmp_path / "extra.pt")
    assert torch.load(tmp_path / "extra.pt", weights_only=False)["rng"]["random"] == states["random"]


def test_what_processes_of_a_run_send_each_other_arrives():
    """verl sends batches as pickles of its own classes, which are no plain values."""
    batch = DataProto.from_dict({"a": torch.arange(6).reshape(2, 3)}, non_tensors={"b": np.array(["x", "y"], dtype=object)})
    arrived = pickle.loads(pickle.dumps(batch))
    assert torch.equal(arrived.batch["a"], batch.batch["a"]) and list(arrived.non_tensor_batch["b"]) == ["x", "y"]


@pytest.fixture
def variables(monkeypatch):
    before = dict(os.environ)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


def test_every_process_of_a_run_reads_so(variables):
    variables.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trainer = SimpleNamespace(nnodes=1, device="cpu")
    config = SimpleNamespace(run=SimpleNamespace(dir="/x"), trainer=trainer, determinism=None)
    for _ in range(2):  # and again for the next run of a process
        task_runner.set_environment(config)
    assert not any("WEIGHTS_ONLY_LOAD" in name for name in os.environ)
    modules = os.environ["VERL_USE_EXTERNAL_MODULES"].split(",")
    assert modules.count("Verl.adapter.safe_load") == 1 and "Verl.cpu.plugin" in modules


def test_random_states_go_through_json_and_back():
    random.gauss(0, 1), np.random.randn()  # each keeps a second number for the next call
    states = json.loads(json.dumps(checkpoints.random_states()))
    expected = drawn()
    checkpoints.set_random_states(states)
    assert drawn() == expected


def test_an_older_checkpoint_is_read_and_an_attack_in_it_refused(tmp_path):
    torch.save({"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()},
               tmp_path / "driver_random.pt")  # fmt: skip
    expected = drawn()
    checkpoints.set_random_states(checkpoints._read_random_states(tmp_path))
    assert drawn() == expected
    torch.save(Attack(tmp_path / "ran"), tmp_path / "driver_random.pt")
    with pytest.raises(UserError, match="driver_random"):
        checkpoints._read_random_states(tmp_path)
    assert not (tmp_path / "ran").exists()
