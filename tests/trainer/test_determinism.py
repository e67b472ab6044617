"""`determinism=full`: all of it, or none, and not what undoes it."""

import os

import pytest

from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import determinism, task_runner

SCRIPT = "run_grpo_0032_8_qwen0.5b_gsm.sh"
WITH_SEED_3 = {
    "VERL_FULL_DETERMINISM": "1", "VLLM_BATCH_INVARIANT": "1", "PYTHONHASHSEED": "3", "CUBLAS_WORKSPACE_CONFIG": ":16:8"
}  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT"):
        monkeypatch.delenv(name, raising=False)


def prepared(*typed):
    return shipped.prepare(SCRIPT, list(typed)).config


def test_it_sets_all_that_belongs_to_it():
    config = prepared("determinism=full", "seed=3")
    ours = config.actor_rollout_ref
    assert ours.actor.fsdp_config.full_determinism and ours.ref.fsdp_config.full_determinism and ours.rollout.full_determinism
    assert determinism.environment(config) == WITH_SEED_3
    plain = prepared()
    assert not plain.actor_rollout_ref.rollout.full_determinism and determinism.environment(plain) == {}
    assert config.run.name != plain.run.name  # no run goes on with it that began without it


@pytest.fixture
def variables():
    """Those of this process, put back afterwards."""
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("typed", [[], ["determinism=full", "seed=3"]])
def test_a_run_sets_its_variables_and_none_without_it(variables, typed):
    for name in WITH_SEED_3:
        variables.pop(name, None)
    task_runner.set_environment(prepared(*typed))
    assert {name: variables[name] for name in WITH_SEED_3 if name in variables} == (WITH_SEED_3 if typed else {})


@pytest.mark.parametrize(
    "typed, says",
    [
        (["determinism=some"], "choose full"),
        (["actor_rollout_ref.rollout.full_determinism=true"], "set determinism=full"),
        (["actor_rollout_ref.actor.fsdp_config.full_determinism=true"], "set determinism=full"),
        (["determinism=full", "actor_rollout_ref.ref.fsdp_config.full_determinism=false"], "leave it out"),
        (["determinism=full", "actor_rollout_ref.rollout.agent.num_workers=2"], "leave it at 1"),
        (["determinism=full", "trainer.device=cpu"], "equal to the byte already"),
    ],
)
def test_half_of_it_is_refused(typed, says):
    with pytest.raises(UserError, match=says):
        prepared(*typed)


@pytest.mark.parametrize("typed, value", [([], "1"), (["determinism=full"], "0")])
def test_an_environment_that_says_something_else_is_refused(monkeypatch, typed, value):
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", value)
    with pytest.raises(UserError, match="unset it"):
        prepared(*typed)


@pytest.mark.parametrize("capability, refused", [("7.5", True), ("8.0", False), ("9.0\n7.0", True)])
def test_a_gpu_that_is_too_old_for_vllm_is_refused(monkeypatch, capability, refused):
    config = prepared("determinism=full")
    monkeypatch.setattr(determinism, "gpu_present", lambda: True)
    monkeypatch.setattr(determinism.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": capability}))
    if refused:
        with pytest.raises(UserError, match="rollout.name=hf"):
            determinism.check_gpu(config)
    else:
        determinism.check_gpu(config)
