"""Every shipped script composes, passes the checks, and is named by what it does; every factor changes what it declares."""

import pytest

from Verl.design.declared import script_name
from Verl.design.differences import check_factors
from Verl.errors import UserError
from Verl.study import design_cli, shipped
from Verl.trainer import launch
from Verl.trainer.verl_checks import check_with_verl


@pytest.fixture(scope="module")
def prepared(study) -> dict[str, shipped.Prepared]:
    found = dict(design_cli.prepared_scripts(list(study.scripts), design_cli.design.BASH))
    wrong = [f"{name}: {one}" for name, one in found.items() if isinstance(one, UserError)]
    assert not wrong, wrong
    return found


@pytest.mark.slow
def test_every_script_is_named_by_what_it_does(study, prepared):
    for name, (arm, pair) in study.scripts.items():
        assert prepared[name].name == f"{arm.name}_{pair.name}_seed0"
        assert prepared[name].algorithm == arm.entry


@pytest.mark.slow
def test_verl_itself_accepts_every_script(prepared):
    for one in prepared.values():
        check_with_verl(one.config)


def test_what_verl_rejects_is_one_sentence(capsys):
    data = [f"data.{key}_files=x" for key in ("train", "val", "test")]
    wrong = "actor_rollout_ref.actor.loss_agg_mode=token_mean"
    with pytest.raises(SystemExit) as ended:
        launch.main("grpo", ["--dry-run", "trainer.device=cpu", "actor_rollout_ref.model.path=/x", *data, wrong])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err == "error: verl rejects the settings: Invalid loss_agg_mode: token_mean\n" and said.out == ""


@pytest.mark.slow
def test_arms_of_a_factor_differ_in_what_it_declares(study, prepared):
    pairs = list(study.pairs.values())
    count, problems = check_factors(study, lambda arm, pair: prepared[script_name(arm, pair)], pairs)
    assert problems == []
    # per GPU pair: 1 + 10 + 3 + 36 + 3 + 3 + 6
    assert count >= 6 * 62


@pytest.mark.slow
def test_every_gpu_script_fits_the_planned_machine(study, prepared):
    from Verl.trainer import memory

    for name, (_, pair) in study.scripts.items():
        machine = study.machines[pair.machine]
        if "memory_gib" in machine:
            size = memory.ModelSize.of(study.models[pair.model])
            found = memory.memory(size, prepared[name].config, machine["memory_gib"], machine["reserve_gib"])
            assert memory.too_small(name, found) is None


def test_the_diff_says_whether_it_is_one_factor(capsys):
    assert design_cli.main(["diff", "grpo_0032_1", "grpo_0032_8", "--pair", "tiny_arith"]) == 0
    said = capsys.readouterr().out
    assert "actor_rollout_ref.rollout.n: 1 -> 8" in said and "one factor: rollouts" in said
    assert design_cli.main(["diff", "grpo_0032_1_tiny_arith", "run_grpo_0128_8_tiny_arith.sh"]) == 0
    assert "not one declared factor: 2 keys differ" in capsys.readouterr().out
    assert design_cli.main(["diff", "grpo_0032_8", "onerpo_0032_1_8", "--pair", "tiny_arith"]) == 2
    assert "did you mean onerpo_0032_1_7?" in capsys.readouterr().err


def test_the_plan_refuses_a_gpu_that_is_too_small(capsys):
    assert design_cli.main(["plan", "--pair", "qwen0.5b_gsm", "--arms", "grpo_0032_8", "--steps", "100"]) == 0
    said = capsys.readouterr().out
    assert "GIB" not in said and "26.2 M" in said  # 100 x 256 x 1024
    assert "smallest difference in test Pass@1 that the study will show" in said and "(1 comparison with" in said
    arguments = ["plan", "--pair", "olmo1b_gsm", "--arms", "grpo_0032_8", "--gpu-gib", "24"]
    assert design_cli.main(arguments) == 2
    assert "grpo_0032_8 on olmo1b_gsm does not fit by plan" in capsys.readouterr().err
    assert design_cli.main(["plan", "--pair", "qwen0.5b_gsm", "--steps", "0"]) == 2


@pytest.mark.parametrize("pair", ["tiny_arith", "llama1b_math"])
def test_the_design_can_be_shown(capsys, study, pair):
    assert design_cli.main(["show", "--pair", pair]) == 0
    said = capsys.readouterr().out
    assert all(f"run_{arm}_{pair}.sh" in said for arm in study.pairs[pair].arms)
