"""The ready factors of study.yaml: they compose on every pair, fit their GPUs by plan, and stand in the docs."""

import re

import pytest

from Verl.errors import UserError
from Verl.study import effect, factors_page, scripts, shipped
from Verl.trainer import run_config
from Verl.trainer.memory import ModelSize, memory

GPU_PAIRS = ("qwen0.5b_gsm", "qwen0.5b_math", "llama1b_gsm", "llama1b_math", "olmo1b_gsm", "olmo1b_math")


def composed(study, arm, pair):
    """The checked config of an arm on a pair, whether there is a script or not."""
    algorithm, settings = scripts.arguments(study.arms[arm], study.pairs[pair])
    with shipped.hub_left_alone():
        return run_config.prepare(algorithm, settings, [], to_the_end=False)[0]


@pytest.fixture(scope="module")
def ready(study) -> list[str]:
    """The arms beyond the published grid, which have scripts on the smallest pair alone, if anywhere."""
    return sorted({arm for factor in study.factors.values() for arm in factor.beyond})


@pytest.mark.slow
@pytest.mark.parametrize("pair", GPU_PAIRS)
def test_every_arm_composes_and_fits_by_plan(study, ready, pair):
    machine, size = study.machines["a100"], ModelSize.of(study.models[study.pairs[pair].model])
    assert len(ready) > 20
    for arm in ready:
        config = composed(study, arm, pair)
        assert config.run.arm == arm
        found = memory(size, config, machine["memory_gib"], machine["reserve_gib"])
        assert found.fits, (arm, found)


def test_what_is_relative_follows_the_pair(study):
    """One arm, declared once: a multiple of the model's learning rate, lengths of the data set."""
    lr, length = "actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.actor.loss_scale_factor"
    found = {pair: composed(study, "grpo_0032_8_lr3x", pair) for pair in ("tiny_arith", "qwen0.5b_gsm")}
    assert [config.actor_rollout_ref.actor.optim.lr for config in found.values()] == [3e-4, 3e-6], lr
    found = [composed(study, "grpo_0032_8_fixedlength", pair) for pair in found]
    assert [config.actor_rollout_ref.actor.loss_scale_factor for config in found] == [32, 1024], length
    found = [composed(study, "grpo_0032_8_softoverlong", pair) for pair in ("tiny_arith", "qwen0.5b_gsm")]
    assert [config.reward.reward_kwargs.overlong_buffer_cfg.len for config in found] == [6, 205]


def test_a_factor_for_a_gpu_is_refused_on_a_cpu_and_trained_by_the_check(study):
    with pytest.raises(UserError, match=r"--factor correction can't be run on tiny_arith: .*rounding; choose a pair"):
        study.chosen(study.pairs["tiny_arith"], [], ["correction"])
    wanted = effect.comparisons(study, [study.pairs["tiny_arith"]])
    (one,) = [one for one in wanted if one.factor.name == "correction"]
    for arm in (one.a, one.b):
        assert "actor_rollout_ref.rollout.dtype=bfloat16" in effect.trial(arm, study.pairs["tiny_arith"], one).overrides


def test_the_page_has_a_row_for_every_factor_with_question_keys_and_arms(study, root):
    page = (root / "docs/factors.md").read_text()
    rows = dict(re.findall(r"^\| \*\*(\w+)\*\*(.*)\|$", page, re.MULTILINE))
    assert list(rows) == list(study.factors)
    for name, factor in study.factors.items():
        assert factor.question in rows[name]
        assert all(f"`{word}`" in rows[name] for word in (*factor.keys, *factor.members))
    assert factors_page.with_table(page, study) == page


def test_a_page_without_the_marks_is_left_alone(study):
    assert factors_page.with_table("own words\n", study) == "own words\n"


def test_a_setting_with_a_bash_sign_in_it_reaches_the_run_as_it_stands(study):
    _, settings = scripts.arguments(study.arms["grpo_0032_8_fixedlength"], study.pairs["tiny_arith"])
    assert "actor_rollout_ref.actor.loss_scale_factor=${data.max_response_length}" in settings
