"""Every estimator and variant goes through a real run; what it logs must fit what it declares."""

import pytest

pytestmark = pytest.mark.slow

SHORT = ["trainer.total_training_steps=4", "trainer.test_freq=-1", "evaluation.val_freq=4", "trainer.save_freq=-1"]
EVALUATED_TWICE = ["actor_rollout_ref.rollout.val_kwargs.n=2", "actor_rollout_ref.rollout.val_kwargs.temperature=0.7"]
RUNS = {
    "rloo": ("grpo", ["algorithm.adv_estimator=rloo", "actor_rollout_ref.rollout.n=2"]),
    "reinforce_plus_plus": ("grpo", ["algorithm.adv_estimator=reinforce_plus_plus"]),
    "arpo": ("bandit", ["algorithm.adv_estimator=arpo", "actor_rollout_ref.rollout.n=2", *EVALUATED_TWICE]),
    "banditpo": ("replay", ["algorithm.adv_estimator=banditpo", "data.window_size=2"]),
    "replay-before-update": ("replay", ["algorithm.replay.include_current=False", "data.window_size=2"]),
    "replay-beta": ("replay", ["algorithm.replay.baseline=beta", "algorithm.replay.min_history=1"]),
    "shuffled": ("grpo", ["algorithm.shuffle_rewards=True", "actor_rollout_ref.rollout.n=2"]),
}


@pytest.fixture(scope="module")
def runs(mini):
    return mini.together({name: (algorithm, [*SHORT, *overrides]) for name, (algorithm, overrides) in RUNS.items()})


@pytest.mark.parametrize("name", RUNS)
def test_runs(runs, name):
    """arpo's evaluations draw two samples at another temperature, the others' the published metric; the log says which."""
    algorithm, overrides = RUNS[name]
    result = runs[name]
    assert result.status == 0, result.output
    n = 2 if "actor_rollout_ref.rollout.n=2" in overrides else 1
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
        covered = {"banditpo": 1.0, "replay-before-update": 0.0, "replay-beta": 1.0}[name]
        assert last["replay/baseline_coverage"] == covered


def test_a_budget_ends_the_run_with_its_evaluation(mini):
    result = mini.run("grpo", "budget", "budget.gradient_samples=40", "actor_rollout_ref.rollout.n=2")
    assert result.status == 0, result.output
    last = result.records[-1]
    assert last["step"] < 10 and last["ledger/total_gradient_samples"] >= 40
    assert result.records[-2]["ledger/total_gradient_samples"] < 40
    assert "eval/test/pass@1" in last
