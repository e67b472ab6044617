"""Every estimator and variant goes through a real run; what it logs must fit what it declares."""

import pytest

pytestmark = pytest.mark.slow

SHORT = ["trainer.total_training_steps=4", "trainer.test_freq=-1", "evaluation.val_freq=4", "trainer.save_freq=-1"]
EVALUATED_TWICE = ["actor_rollout_ref.rollout.val_kwargs.n=2", "actor_rollout_ref.rollout.val_kwargs.temperature=0.7"]
N2 = "actor_rollout_ref.rollout.n=2"
RUNS = {
    "rloo": ("grpo", ["algorithm.adv_estimator=rloo", N2]),
    "reinforce_plus_plus": ("grpo", ["algorithm.adv_estimator=reinforce_plus_plus"]),
    "arpo": ("bandit", ["algorithm.adv_estimator=arpo", N2, *EVALUATED_TWICE]),
    "banditpo": ("replay", ["algorithm.adv_estimator=banditpo", "data.window_size=2"]),
    "replay-before-update": ("replay", ["algorithm.replay.include_current=False", "data.window_size=2"]),
    "replay-beta": ("replay", ["algorithm.replay.baseline=beta", "algorithm.replay.min_history=1"]),
    "replay-ema-before": ("replay", ["algorithm.replay.baseline=ema", "algorithm.replay.include_current=False",
                                     "algorithm.replay.min_history=1"]),
    "reinforce-right": ("grpo", ["algorithm.adv_estimator=reinforce", N2, "algorithm.train_on=right"]),
    "jamesstein-wrong": ("grpo", ["algorithm.adv_estimator=jamesstein", N2, "algorithm.train_on=wrong"]),
    "shuffled": ("grpo", ["algorithm.shuffle_rewards=True", N2]),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(mini):
    asked = {name: (algorithm, [*SHORT, *overrides]) for name, (algorithm, overrides) in RUNS.items()}
    return mini.together("algorithms", asked)


@pytest.mark.parametrize("name", RUNS)
def test_runs(runs, name):
    """arpo's evaluations draw two samples at another temperature, the others' the published metric; the log says which."""
    algorithm, overrides = RUNS[name]
    result = runs[name]
    assert result.status == 0, result.output
    n = 2 if N2 in overrides else 1
    for record in result.records[1:]:
        assert record["ledger/responses_trained"] == record["ledger/responses_generated"] == 16 * n
        assert record["actor/grad_norm"] > 0
    last = result.records[-1]
    assert last["ledger/total_queries"] == 64 and last["ledger/queries"] == 16
    drawn = [last[f"eval/validation/{key}"] for key in ("samples", "temperature")]
    assert drawn == ([2.0, 0.7] if name == "arpo" else [1.0, 1.0])
    answers = result.evaluation(4)
    answers = answers[answers.split == "validation"]
    assert list(answers["sample"]) == list(range(int(drawn[0]))) * 16 and answers.text.notna().all()
    assert last["eval/validation/pass@1"] == pytest.approx(answers.strict.mean())
    if drawn[0] == 2:  # two streams of random numbers, and so two answers
        assert (answers.text[answers["sample"] == 0].to_numpy() != answers.text[answers["sample"] == 1].to_numpy()).any()
        assert "Pass@1, the mean of 2 samples at temperature 0.7: train" in result.output
    if algorithm == "replay":
        # 48 questions, 16 a step: every query of step 4 was seen once before.
        assert [record["replay/queries_seen"] for record in result.records[1:]] == (
            [0 if "before" in name else 16, 16 if "before" in name else 32, 32 if "before" in name else 48, 48]
        )
        assert last["replay/baseline_coverage"] == (0.0 if name == "replay-before-update" else 1.0)


@pytest.mark.parametrize("name, right", [("reinforce-right", 1.0), ("jamesstein-wrong", 0.0)])
def test_responses_of_the_other_kind_are_left_out_of_the_loss(runs, name, right):
    samples = runs[name].samples()
    for record in runs[name].records[1:]:
        rewards = samples[samples.step == record["step"]].reward
        assert 0 < record["ledger/masked_responses"] == (rewards != right).sum() < len(rewards) == 32
        assert record["train/reward_mean"] == rewards.mean()  # of all, whether they train or not
    if right:  # A = R: what is trained on has the advantage 1
        assert record["train/advantage_mean"] == pytest.approx(rewards.mean()) and record["train/advantage_max_abs"] == 1


def test_a_budget_ends_the_run_with_its_evaluation(mini):
    final = "evaluation.final_samples=3"
    result = mini.hosted("grpo", "budget", "budget.gradient_samples=40", N2, final)
    assert result.status == 0, result.output
    last = result.records[-1]
    assert last["step"] < 10 and last["ledger/total_gradient_samples"] >= 40
    assert result.records[-2]["ledger/total_gradient_samples"] < 40
    answers = result.evaluation(last["step"])
    answers = answers[answers.split == "test"]
    assert last["eval/test/avg@3"] == pytest.approx(answers.strict.mean()) and len(answers) == 3 * 24
    assert last["eval/test/pass@1"] == pytest.approx(answers.strict[answers["sample"] == 0].mean())


def test_final_samples_leave_everything_else_as_it_is(mini):
    """Three answers per test question at both ends of the run. By verl's agent loop: test_features.py."""
    ends = [*SHORT[:1], "trainer.test_freq=2", *SHORT[2:], "evaluation.final_samples=3"]
    found = mini.together("final", {"one": ("grpo", ends[:-1]), "three": ("grpo", ends)})
    one, three = found["one"], found["three"]
    assert all(result.status == 0 for result in found.values()), [result.output for result in found.values()]
    further = {"eval/test/avg@3", "eval/test/avg@3/failures", "eval/test/pass@3"}
    for step, (ours, plain) in enumerate(zip(three.metrics(), one.metrics(), strict=True)):
        assert {key: value for key, value in ours.items() if key not in further} == plain
        assert (further <= ours.keys()) == (step in (0, 4))
    for step in (0, 2, 4):
        answers, plain = three.evaluation(step), one.evaluation(step)
        first = answers[answers["sample"] == 0].reset_index(drop=True)
        assert first[["split", "index", "text", "log_prob"]].equals(plain[["split", "index", "text", "log_prob"]])
        samples = [0, 1, 2] if step != 2 else [0]
        of_test = answers[answers.split == "test"].sort_values(["index", "sample"])
        assert of_test["sample"].tolist() == samples * 24
    assert answers.query("split == 'test'").groupby("index").text.nunique().max() > 1
