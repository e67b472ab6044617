"""What a run changes about its process is undone before the next one."""

import logging
import os
import random
import signal
import sys
import warnings

import numpy as np
import pytest
import torch

from Verl.adapter.process_state import ProcessState


@pytest.fixture
def state():
    now = ProcessState.now()
    yield now
    now.restore()


def described(state: ProcessState) -> dict:
    names = ("environment", "folder", "path", "torch", "floating", "warnings", "handlers")
    return {name: getattr(state, name) for name in names}


def test_what_was_changed_is_as_it_was(state, tmp_path):
    handler = logging.StreamHandler()
    logger = logging.getLogger("asyncio")  # one that was there
    before = (logger.level, list(logger.handlers), list(logging.getLogger().handlers))
    os.environ["LEFT_BY_A_RUN"] = "1"
    os.chdir(tmp_path)
    sys.path.insert(0, str(tmp_path))
    warnings.simplefilter("error")
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.CRITICAL)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    np.seterr(all="raise")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    changed = described(ProcessState.now())
    assert all(changed[name] != value for name, value in described(state).items())
    state.restore()
    assert described(ProcessState.now()) == described(state)
    assert (logger.level, logger.handlers, logging.getLogger().handlers) == before


def test_the_same_random_numbers_follow(state):
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    torch.manual_seed(5)
    state.restore()
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == drawn


def test_a_users_module_is_read_again_and_a_package_is_not(state, tmp_path, monkeypatch):
    (tmp_path / "own_reward_of_a_run.py").write_text("calls = []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_reward_of_a_run

    own_reward_of_a_run.calls.append(1)
    state.restore()
    assert "own_reward_of_a_run" not in sys.modules and sys.modules["numpy"] is np
