"""Do arms that are compared train something different? The check itself, and what it says of the shipped factors."""

import re

import pytest
import yaml

from Verl.design import declared as design
from Verl.study import effect, probe

SMALL = probe.Trace(weights="a", responses="r", evaluation="e")


@pytest.fixture
def study():
    return design.load()


def planted(tmp_path, arms: dict, factors: dict) -> design.Study:
    """study.yaml with more arms and factors, on the smallest pair."""
    raw = yaml.safe_load(design.DESIGN_FILE.read_text())
    raw["extra"] |= arms
    raw["factors"] |= factors
    raw["pairs"]["tiny_arith"]["more"] += list(arms)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return design.load(path)


def answers(monkeypatch, tmp_path, trace_of):
    """Trials that are answered by a function of their overrides; the jobs that were asked for."""
    asked = []

    def run(jobs, log):
        for job in jobs:
            asked.append(job)
            yield job, trace_of(dict(text.split("=", 1) for text in job.overrides))

    monkeypatch.setattr(effect, "CACHE", tmp_path)
    monkeypatch.setattr(effect, "prepare", lambda pair: None)
    monkeypatch.setattr(effect, "_data", lambda pair, questions: {})
    monkeypatch.setattr(effect.probe, "run", run)
    return asked


def test_every_comparison_of_every_pair_is_checked_once(study):
    wanted = effect.comparisons(study, study.pairs.values())
    compared = {(one.factor.name, one.a.name, one.b.name) for one in wanted}
    assert len(compared) == len(wanted)
    for pair in study.pairs.values():
        for factor in study.factors.values():
            assert all((factor.name, a, b) in compared for a, b in pair.comparisons(factor))


def settings_of(job: probe.ProbeJob) -> dict[str, str]:
    return dict(text.split("=", 1) for text in job.overrides)


def comparison(study, factor: str, a: str) -> effect.TrialComparison:
    return next(c for c in effect.comparisons(study, study.pairs.values()) if (c.factor.name, c.a.name) == (factor, a))


def test_a_trial_with_a_history_sees_every_query_twice_and_keeps_what_the_factor_declares(study):
    one = comparison(study, "replay", "asyttgrpo_0064_4_8")
    settings = settings_of(effect.trial(one.a, study.pairs["tiny_arith"], one))
    assert settings["data.train_max_samples"] == settings["data.train_batch_size"] == "16"  # 64 divided
    assert settings["trainer.total_training_steps"] == "2" and settings["data.window_size"] == "8"


def test_all_batches_of_a_factor_are_divided_by_one_number(study):
    """So that its arms differ as before; what is too small to be divided is left alone."""
    tiny = study.pairs["tiny_arith"]
    found = {}
    for one in effect.comparisons(study, [tiny]):
        for arm in (one.a, one.b) if one.factor.name in ("batch", "replay", "replay_larger", "tradeoff", "updates") else ():
            queries = int(settings_of(effect.trial(arm, tiny, one))["data.train_batch_size"])
            assert queries >= 16 or one.divisor == 1
            found.setdefault(one.factor.name, set()).add(arm.queries / queries)
    assert all(len(divisors) == 1 for divisors in found.values()), found
    assert found["batch"] == {2} and found["replay_larger"] == {4} and found["updates"] == {2} and found["tradeoff"] == {1}


def test_a_mini_batch_is_divided_with_its_batch(study):
    """Four updates per round stay four."""
    one = comparison(study, "clip", "grpo_0032_8_updates4")
    settings = settings_of(effect.trial(one.a, study.pairs["tiny_arith"], one))
    assert (settings["data.train_batch_size"], settings["actor_rollout_ref.actor.ppo_mini_batch_size"]) == ("16", "4")


def test_a_batch_that_the_user_typed_is_left_as_it_is(study):
    one, tiny = comparison(study, "clip", "grpo_0032_8_updates4"), study.pairs["tiny_arith"]
    for typed in ("data.train_batch_size=64", "actor_rollout_ref.actor.ppo_mini_batch_size=1"):
        key, _, value = typed.partition("=")
        settings = settings_of(effect.trial(one.a, tiny, one, [typed]))
        assert settings[key] == value and settings["data.train_max_samples"] == "256"


def test_histories_that_a_study_never_reads_are_not_tried_longer(monkeypatch, tmp_path, study):
    """20 steps of 32 questions ask each of 512 twice: a window and an average are one mean until then."""
    tiny, arms = study.pairs["tiny_arith"], ["asyttgrpo_0032_8_32_window", "asyttgrpo_0032_8_32_ema"]
    for visits, steps in ((dict.fromkeys(arms, 2), 2), (dict.fromkeys(arms, 9), 3), (None, 3)):
        (one,) = effect.comparisons(study, [tiny], arms, visits)
        assert one.steps == steps == int(settings_of(effect.trial(one.a, tiny, one))["trainer.total_training_steps"])
    answers(monkeypatch, tmp_path, lambda settings: probe.Trace(weights=settings["trainer.total_training_steps"]))
    (problem,) = effect.check(study, effect.comparisons(study, [tiny], arms, dict.fromkeys(arms, 2)), say=lambda text: None)
    assert "2 times at most" in problem and "data.train_max_samples" in problem
    # Arms without a history do not mind.
    others = ["grpo_0032_1", "grpo_0032_8"]
    assert {one.steps for one in effect.comparisons(study, [tiny], others, dict.fromkeys(others, 1))} == {effect.STEPS}


def test_arms_without_a_common_factor_are_compared_with_the_first(monkeypatch, tmp_path, study):
    arms = ["grpo_0032_8", "grpo_0032_8_updates4_noclip", "grpo_0032_8_updates4_cispo"]
    wanted = effect.comparisons(study, [study.pairs["tiny_arith"]], arms)
    assert [(one.a.name, one.b.name) for one in wanted] == [(arms[0], arms[1]), (arms[0], arms[2])]
    alike = {"actor_rollout_ref.actor.ppo_mini_batch_size": "8"}
    answers(monkeypatch, tmp_path, lambda settings: probe.Trace(weights=str(alike.items() <= settings.items())))
    (problem,) = effect.check(study, wanted, say=lambda text: None)
    assert "noclip and grpo_0032_8_updates4_cispo are one arm" in problem
    assert effect.comparisons(study, [study.pairs["tiny_arith"]], ["grpo_0032_8"]) == []


def test_an_arm_of_several_factors_is_checked_once(study):
    tiny = study.pairs["tiny_arith"]
    jobs = {
        effect.trial(study.arms["grpo_0032_8"], tiny, one).overrides
        for one in effect.comparisons(study, [tiny])
        if "grpo_0032_8" in (one.a.name, one.b.name) and one.factor.name in ("rollouts", "batch", "controls", "kl", "updates")
    }
    assert len(jobs) == 1


def test_a_key_that_the_factor_declares_is_not_cut(tmp_path, study):
    declared = {"keys": ["data.max_response_length"], "arms": ["grpo_0032_8", "grpo_0032_8_short"], "title": "length"}
    arm = {"estimator": "grpo", "queries": 32, "rollouts": 8, "variant": "short", "settings": ["data.max_response_length=20"]}
    more = planted(tmp_path, {"grpo_0032_8_short": arm}, {"length": declared})
    (one,) = effect.comparisons(more, [more.pairs["tiny_arith"]], ["grpo_0032_8", "grpo_0032_8_short"])
    assert "data.max_response_length=20" in effect.trial(one.b, more.pairs["tiny_arith"], one).overrides
    assert not any("max_response_length=16" in text for text in effect.trial(one.a, more.pairs["tiny_arith"], one).overrides)


def test_what_is_found(monkeypatch, tmp_path, study):
    """The same weights are a problem, a failure is a problem, different weights are none; each trial is paid for once."""

    def trace_of(settings):
        n = settings["actor_rollout_ref.rollout.n"]
        return probe.Trace(failed="OutOfMemory") if n == "64" else probe.Trace(weights={"16": "same", "32": "same"}.get(n, n))

    asked = answers(monkeypatch, tmp_path, trace_of)
    rollouts = [one for one in effect.comparisons(study, [study.pairs["tiny_arith"]]) if one.factor.name == "rollouts"]
    problems = effect.check(study, rollouts, say=lambda text: None)
    assert len(asked) == 5 and len(problems) == 2
    assert sum("grpo_0032_64 can't be trained: OutOfMemory" in problem for problem in problems) == 1
    assert sum("grpo_0032_16 and grpo_0032_32 end with the same weights" in problem for problem in problems) == 1
    effect.check(study, rollouts, say=lambda text: None)
    assert len(asked) == 6  # only what failed is tried again


def test_arms_that_no_factor_compares_but_are_the_same(monkeypatch, tmp_path, study):
    """Two names of one arm: a study would count every one of its results twice."""
    answers(monkeypatch, tmp_path, lambda settings: probe.Trace(weights=settings["algorithm.adv_estimator"][:2]))
    signal = [one for one in effect.comparisons(study, [study.pairs["tiny_arith"]]) if one.factor.name == "signal"]
    assert not effect.check(study, signal, say=lambda text: None)
    is_grpo = lambda settings: str(settings["algorithm.adv_estimator"] == "grpo")  # noqa: E731
    answers(monkeypatch, tmp_path / "b", lambda settings: probe.Trace(weights=is_grpo(settings)))
    (problem,) = effect.check(study, signal, say=lambda text: None)
    assert "are one arm" in problem
    # With a learning rate of 0 all end with the weights they began with; what they answered still tells them apart.
    same_weights = lambda settings: probe.Trace(weights="a", responses=settings["algorithm.adv_estimator"][:2])  # noqa: E731
    answers(monkeypatch, tmp_path / "c", same_weights)
    assert not any("are one arm" in text for text in effect.check(study, signal, say=lambda text: None))


def arm_of_the_manual(root) -> dict:
    """What docs/extending.md adds to study.yaml for its arm."""
    section = (root / "docs/extending.md").read_text().partition("\n## An arm\n")[2]
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", section, re.DOTALL).group(1))


@pytest.mark.slow
def test_the_shipped_factors_train_what_they_declare(tmp_path, root):
    """Every comparison of every factor, for real, and docs/extending.md's arm; a planted arm that changes nothing is found."""
    more = arm_of_the_manual(root)
    inert = {"estimator": "grpo", "queries": 32, "rollouts": 8, "variant": "inert",
             "settings": ["actor_rollout_ref.actor.grad_clip=0.5"]}  # fmt: skip
    factor = {"title": "planted", "keys": ["actor_rollout_ref.actor.grad_clip"], "arms": ["grpo_0032_8", "grpo_0032_8_inert"]}
    arms, factors = {**more["extra"], "grpo_0032_8_inert": inert}, {**more["factors"], "planted": factor}
    study = planted(tmp_path, arms, factors)
    wanted = effect.comparisons(study, study.pairs.values())
    assert {one.factor.name for one in wanted} == {name for name, one in study.factors.items() if len(one.arms) != 1}
    (problem,) = effect.check(study, wanted)
    assert problem.startswith("factor planted: grpo_0032_8 and grpo_0032_8_inert end with the same weights")
    assert "optim.clip_grad" in problem
