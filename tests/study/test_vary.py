"""Factors that are asked for on the command line: their arms, what is refused, what is saved, runs without a script."""

import difflib
import functools
import json
import shlex
import sys

import pytest

from Verl.analysis.verdicts.factors import arms_of, comparisons_of
from Verl.design import declared as design
from Verl.design.differences import check_factors
from Verl.errors import UserError
from Verl.study import effect, saved, scripts, shipped, starting, study_cli, study_options, vary
from Verl.study.plan import Workload

KL, N, LR = (f"actor_rollout_ref.{key}" for key in ("actor.kl_loss_coef", "rollout.n", "actor.optim.lr"))
BASE = ["--base", "grpo_0032_8"]


prepared = functools.cache(starting.prepare)


@pytest.fixture(autouse=True)
def prepared_once(monkeypatch):
    """Composing a config takes a fifth of a second, and most tests begin with the same."""
    once = lambda arm, pair, user=(), folder=design.BASH: prepared(arm, pair, tuple(user), folder)  # noqa: E731
    monkeypatch.setattr(starting, "prepare", once)


def options_of(*arguments, pair="tiny_arith"):
    return study_cli._parser().parse_args(["--pair", pair, *arguments])


def request_of(study, *arguments, pair="tiny_arith"):
    options = options_of(*arguments, pair=pair)
    study_cli._tidy(options)
    return study_options.read(study, study.pair(pair), options, options.overrides)


def names(request):
    return [arm.name for arm in request.arms]


def test_a_level_that_the_base_has_is_the_base(study):
    request = request_of(study, *BASE, "--vary", f"{KL}=0.1,1e-3,0.2")
    assert names(request) == ["grpo_0032_8", "grpo_0032_8_kl_loss_coef-0.1", "grpo_0032_8_kl_loss_coef-0.2"]
    assert request.arms[0].levels == () and request.arms[2].levels == (f"{KL}=0.2",)
    [factor] = request.study.factors.values()
    assert factor.keys == (KL,) and factor.reference == request.reference == "grpo_0032_8"


def test_two_texts_of_one_value_are_one_arm(study):
    assert names(request_of(study, *BASE, "--vary", f"{KL}=0.1,1e-1")) == ["grpo_0032_8", "grpo_0032_8_kl_loss_coef-0.1"]


def test_an_arm_that_study_yaml_has_keeps_its_name_and_what_follows_from_a_key_follows(study, tmp_path):
    options = options_of(*BASE, "--vary", f"{N}=1", "--vary", "data.train_batch_size=16", "--seeds", "0", "--command", "true")
    queue = study_cli._queue(study, study.pair("tiny_arith"), options, tmp_path)
    assert [job.run for job in queue] == [
        f"{arm}_tiny_arith_seed0" for arm in ("grpo_0032_8", "grpo_0032_1", "grpo_0016_8")
    ]
    assert queue[1].config_hash == shipped.prepare("run_grpo_0032_1_tiny_arith.sh").hash
    assert names(request_of(study, *BASE, "--vary", f"{KL}=0", "--vary", f"{LR}=3e-4")) == [
        "grpo_0032_8", "grpo_0032_8_kl0", "grpo_0032_8_lr3x"
    ]  # fmt: skip
    request = request_of(study, *BASE, "--vary", "data.train_batch_size=16")
    config = request.maker.prepared(request.arms[1].start, request.arms[1].levels).config
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 16


def test_several_factors_are_one_at_a_time_around_the_base_and_crossed_all_together(study):
    two = ["--vary", f"{N}=8,2", "--vary", f"{LR}=3e-5,1e-4"]
    request = request_of(study, *BASE, *two)
    assert names(request) == ["grpo_0032_8", "grpo_0032_2", "grpo_0032_8_lr-3e-5"]
    assert [factor.keys for factor in request.study.factors.values()] == [(N,), (LR,)]
    request = request_of(study, *BASE, *two, "--cross")
    assert request.reference == "grpo_0032_8" and len(request.arms) == len(request.grid) == 4
    assert request.grid["2", "3e-5"] == "grpo_0032_2_lr-3e-5"


def test_the_effect_check_trains_the_arms_as_they_would_run(study):
    request = request_of(study, *BASE, "--vary", "data.train_batch_size=16")
    [one] = effect.comparisons(request.study, [request.pair], names(request))
    settings = [dict(text.split("=", 1) for text in effect.trial(arm, request.pair, one).overrides) for arm in (one.a, one.b)]
    assert {settings[0]["data.train_batch_size"], settings[1]["data.train_batch_size"]} == {"16", "32"}
    request = request_of(study, *BASE, "--vary", f"{KL}=0.1")
    [one] = effect.comparisons(request.study, [request.pair], names(request))
    assert f"{KL}=0.1" in effect.trial(one.b, request.pair, one).overrides


@pytest.mark.usefixtures("tiny_pair")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vary", f"{KL}=0"], "--vary needs --base ARM"),
        ([*BASE, "--arms", "grpo_0032_1"], "--base is for --vary"),
        ([*BASE, "--vary", f"{KL}=0", "--arms", "grpo_0032_1"], "leave --arms and --factor out"),
        ([*BASE, "--vary", KL], "write KEY=level,level"),
        ([*BASE, "--vary", f"{KL}=0,,1"], "write KEY=level,level"),
        ([*BASE, "--vary", f"{KL}=0,0"], "has the level 0 twice"),
        ([*BASE, "--vary", f"{KL}=0.001"], "grpo_0032_8 has that anyway"),
        ([*BASE, "--vary", f"{KL}=many"], "has the wrong type: it must be a number"),
        ([*BASE, "--vary", f"{KL}=-1"], "is too small: it must be at least 0"),
        ([*BASE, "--vary", f"{N}=2.5"], "must be a whole number"),
        ([*BASE, "--vary", f"{KL}f=0"], f"did you mean {KL}?"),
        ([*BASE, "--vary", "actor_rollout_ref.actor.clip_ratio=0.1"], "changes nothing: with one update per round"),
        ([*BASE, "--vary", "trainer.save_freq=5"], "changes what is kept and not the training"),
        ([*BASE, "--vary", "seed=1,2"], "give --seeds instead"),
        ([*BASE, "--vary", "data.train_batch_size=1024"], "is larger than the training data (512 questions"),
        ([*BASE, "--vary", f"{KL}=0", "--vary", f"{KL}=0.01"], f"set the same key ({KL})"),
        ([*BASE, "--vary", "data.train_batch_size=16", "--vary", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
         "set the same key (data.train_batch_size)"),
        ([*BASE, "--vary", f"{KL}=0", "--", f"{KL}=0.1"], "set the same key"),
        ([*BASE, "--vary", f"{KL}=0", "--cross"], "give --vary at least twice"),
        ([*BASE, "--vary", "algorithm.adv_estimator=arpo"], "belongs to Verl.trainer.main_ppo_bandit"),
        (["--base", "grpo_0032_8_control_lr0", "--vary", f"{LR}=1e-4"], "is made of its own"),
        ([*BASE, "--vary", f"{KL}=0", "--against", "grpo_0032_1"], "is not among the arms"),
        (["--arms", "grpo_0032_1", "--tune", f"{LR}=1e-4,1", "--against", "grpo_0032_8"], "is not among the arms"),
        ([*BASE, "--vary", f"{KL}=0", "--tune", f"{LR}=1e-4"], "there is nothing to choose from"),
        ([*BASE, "--vary", f"{KL}=0", "--tune", f"{KL}=0.1,1"], "set the same key"),
        (["--arms", "grpo_0032_8", "--tune", f"{LR}=1e-4,1e-3", "--", "evaluation.val_freq=-1"], "leave evaluation.val_freq"),
        ([*BASE, "--vary", f"{KL}=0", "--save", "kl", "--", f"{LR}=1e-3"], "leave one of them out"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_before_anything_runs(study, arguments, said):
    with pytest.raises(UserError) as caught:
        request_of(study, *arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_another_reference_than_the_base_needs_no_stopping_rule(study):
    """The table at the end compares with it; a study without such a table has no use for it."""
    arguments = ["--arms", "grpo_0032_1", "grpo_0032_8", "--against", "grpo_0032_8"]
    tuned = [*arguments, "--tune", f"{LR}=1e-4,1e-3"]
    request = request_of(study, *tuned)
    assert request.reference == "grpo_0032_8" and study_cli._rule(request, options_of(*tuned), []) is None
    with pytest.raises(UserError, match="--against is for --until-decided"):
        study_cli._rule(request, options_of(*arguments), [])


def test_a_batch_beyond_data_that_are_not_here_is_refused_too(study):
    with pytest.raises(UserError, match=r"larger than the training data of qwen0\.5b_gsm"):
        request_of(study, *BASE, "--vary", "data.train_batch_size=16384", pair="qwen0.5b_gsm")


def test_commas_within_brackets_and_quotes_part_no_levels():
    assert vary.split("[1,2],'a,b',{a: 1, b: 2},c") == ["[1,2]", "'a,b'", "{a: 1, b: 2}", "c"]


# ---- arms without a script ------------------------------------------------------------------------------------------


def test_an_arm_of_study_yaml_runs_on_a_pair_where_it_has_no_script(study, tmp_path, monkeypatch):
    monkeypatch.setenv("BANDIT_CWD", str(tmp_path))
    options = options_of("--factor", "controls", "--seeds", "0", "--command", "true", pair="qwen0.5b_gsm")
    pair = study.pair("qwen0.5b_gsm")
    queue = {job.arm: job for job in study_cli._queue(study, pair, options, tmp_path)}
    assert "grpo_0032_8_control_random" not in pair.arms and len(queue) == 5
    job = queue["grpo_0032_8_control_random"]
    assert job.run == "grpo_0032_8_control_random_qwen0.5b_gsm_seed0" and not queue["grpo_0032_8"].unscripted
    start = starting.command(design.BASH / job.script, job.algorithm, job.unscripted, job.overrides)
    at = start.index("Verl.trainer.main_ppo_grpo")
    assert "reward.rule=random" in start[at : start.index("@")] and start[start.index("@") + 1 :] == job.overrides
    recorded = next(text for text in start if text.startswith("BANDIT_COMMAND="))
    assert shlex.split(recorded.partition("=")[2])[1:] == start[start.index(sys.executable) + 1 :]


def test_without_a_script_an_arm_has_the_config_that_its_script_gives(study):
    arm, pair = study.arms["grpo_0032_8_control_random"], study.pair("tiny_arith")
    algorithm, scripted = scripts.arguments(arm, pair)
    with_script = prepared(arm, pair, ("seed=3",))
    config, _ = starting.run_config.prepare(algorithm, scripted, ["seed=3"])
    assert config == with_script.config and with_script.unscripted == ()


def test_arms_that_a_pair_cannot_have_stay_refused(study):
    with pytest.raises(UserError, match="not declared for smollm135m_gsm"):
        study.chosen(study.pair("smollm135m_gsm"), ["grpo_0032_64"], [])
    arms = study.chosen(study.pair("smollm135m_gsm"), [], ["rollouts"])
    assert [arm.name for arm in arms] == ["grpo_0032_1", "grpo_0032_8"]


def test_runs_without_a_script_are_compared_and_drawn_as_others(study):
    factor, present = study.factors["controls"], ["grpo_0032_8", "grpo_0032_8_control_random"]
    arms = arms_of(factor, "qwen0.5b_gsm", present)
    assert set(present) <= set(arms) and "grpo_0032_8_control_lr0" not in arms
    assert ("grpo_0032_8_control_random", "grpo_0032_8") in comparisons_of(factor, "qwen0.5b_gsm", arms)
    assert arms_of(factor, "qwen0.5b_gsm", ["grpo_0032_8"]) == []


# ---- saved -----------------------------------------------------------------------------------------------------------


def test_a_saved_factor_is_as_if_it_had_been_written_by_hand(study, bash_folder):
    path, pair = bash_folder / "study.yaml", study.pair("tiny_arith")
    options = options_of(*BASE, "--vary", f"{KL}=0.1,0.2", "--save", "mine", "--folder", str(bash_folder))
    request = study_options.read(study, pair, options, [])
    assert "2 new arms and 3 files" in study_options.save(study, request, options)
    after = design.load(path)
    assert scripts.drift(after, bash_folder) == {}
    # its scripts run what --vary ran, under the same names
    arms = after.factors["mine"].arms
    ready = {name: prepared(after.arms[name], after.pair(pair.name), ("seed=0",), bash_folder) for name in arms}
    for arm in request.arms:
        scripted, varied = ready[arm.name], request.maker.prepared(arm.start, arm.levels)
        assert (scripted.name, scripted.hash) == (varied.name, varied.hash) and scripted.unscripted == ()
    alone = design.replace(after, factors={"mine": after.factors["mine"]})
    assert check_factors(alone, lambda arm, _: ready[arm], [after.pair(pair.name)]) == (3, [])
    assert "already" in study_options.save(after, request, options)


@pytest.mark.parametrize("pair", ["tiny_arith", "qwen0.5b_gsm", "smollm135m_gsm"])
def test_saving_adds_to_study_yaml_and_changes_no_other_line(study, tmp_path, pair):
    request = request_of(study, *BASE, "--vary", f"{N}=3", "--vary", f"{LR}=3e-5")
    factors = list(request.study.factors.values())
    before = design.DESIGN_FILE.read_text()
    text = saved.added(before, [arm.declared for arm in request.arms[1:]], factors, pair, names(request)[1:])
    (tmp_path / "study.yaml").write_text(text)
    after = design.load(tmp_path / "study.yaml")
    assert set(after.arms) - set(study.arms) == set(names(request)[1:]) <= set(after.pair(pair).arms)
    assert after.factors["lr"].keys == (LR,) and after.factors["rollout_n"].arms == ("grpo_0032_8", "grpo_0032_3")
    changes = list(difflib.ndiff(before.splitlines(), text.splitlines()))
    assert sum(line.startswith("- ") for line in changes) <= 1  # the line that ends the list of the pair's arms


def test_a_name_that_another_factor_has_is_refused(study, bash_folder):
    options = options_of(*BASE, "--vary", f"{KL}=0", "--save", "rollouts", "--folder", str(bash_folder))
    with pytest.raises(UserError, match="has another factor rollouts"):
        study_options.save(study, study_options.read(study, study.pair("tiny_arith"), options, []), options)


# ---- equal cost ------------------------------------------------------------------------------------------------------


def test_a_budget_that_an_arm_s_steps_end_before_is_refused(study, tmp_path):
    """One response to each of 32 queries, 32 tokens at most, 100 steps: 102,400 tokens."""
    options = ["--arms", "grpo_0032_1", "--command", "true", "--seeds", "0"]
    pair = study.pair("tiny_arith")
    assert study_cli._queue(study, pair, options_of(*options, "--budget", "tokens=102400"), tmp_path)
    with pytest.raises(UserError, match="give --steps 196 or more"):
        study_cli._queue(study, pair, options_of(*options, "--budget", "tokens=200000"), tmp_path)
    with pytest.raises(UserError, match=r"--budget gradient_samples=3201.*3,200 at most"):
        study_cli._queue(study, pair, options_of(*options, "--budget", "gradient_samples=3201"), tmp_path)
    assert study_cli._queue(study, pair, options_of(*options, "--budget", "tokens=200000", "--budget", "hours=1"), tmp_path)


def test_dynamic_sampling_can_spend_more_than_a_batch_a_step(study):
    """Each of the 512 questions once a step: 16 batches of 32, unless max_num_gen_batches says less."""
    from omegaconf import OmegaConf

    from Verl.study.budgets import refuse_out_of_reach

    work = Workload(32, 1, 0, 16, 32, steps=100, steps_are_bound=False, evaluated=0)
    groups = {"enable": True, "max_num_gen_batches": 0}
    config = OmegaConf.create({"algorithm": {"filter_groups": groups}})
    refuse_out_of_reach([f"tokens={16 * 102400}"], "a", work, config, 512)
    config.algorithm.filter_groups.max_num_gen_batches = 2
    with pytest.raises(UserError, match="204,800 at most"):
        refuse_out_of_reach([f"tokens={16 * 102400}"], "a", work, config, 512)


def test_a_dry_run_says_what_is_missing_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("Verl.trainer.machine_checks.gpu_present", lambda: False)
    monkeypatch.setattr("Verl.trainer.settings.gpu_present", lambda: False)
    arguments = [*BASE, "--vary", f"{KL}=0.1", "--seeds", "0", "--dry-run", "--result", str(tmp_path)]
    assert study_cli.main(["--pair", "qwen0.5b_gsm", *arguments]) == 0
    said = capsys.readouterr().out
    assert "not ready on this machine" in said and "smallest difference in test Pass@1" in said
    assert "grpo_0032_8_kl_loss_coef-0.1_qwen0.5b_gsm_seed0: to do" in said and not list(tmp_path.iterdir())


def test_the_study_s_table_names_what_starts_its_runs(tmp_path, study):
    """As it is read by whoever starts many runs in one process."""
    options = options_of(*BASE, "--vary", f"{KL}=0.1", "--seeds", "0", "--command", "true")
    job = study_cli._queue(study, study.pair("tiny_arith"), options, tmp_path)[1]
    assert job.script == "run_grpo_0032_8_tiny_arith.sh" and job.overrides == ["seed=0", f"{KL}=0.1"]
    assert json.dumps(job.__dict__)


def test_arms_that_train_the_same_are_refused_before_the_first_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_cli, "_refuse_if_missing", lambda one: None)
    monkeypatch.setattr(effect, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(effect, "prepare", lambda pair: None)
    monkeypatch.setattr(effect, "_data", lambda pair, questions: {})
    monkeypatch.setattr(effect.probe, "run", lambda jobs, log: ((job, effect.probe.Trace(weights="same")) for job in jobs))
    command = ["--pair", "tiny_arith", *BASE, "--vary", f"{KL}=0.1", "--seeds", "0", "--result", str(tmp_path / "result")]
    assert study_cli.main(command) == 2
    error = capsys.readouterr().err
    assert "end with the same weights" in error and error.count("\n") == 1
    assert not list((tmp_path / "result").glob("grpo*"))
