"""The equivalence class of the study over whole runs, and that a seed means the same run."""

import pytest
import torch

from tests.runs.harness import STEPS

pytestmark = pytest.mark.slow

# Another estimator with nothing added is the base line: (entry point, overrides).
TWINS = {
    "onerpo without extra rollouts": ("bandit", ["algorithm.adv_estimator=onerpo", "data.extra_sampling_size=0"]),
    "arpo with one rollout": ("bandit", ["algorithm.adv_estimator=arpo"]),
    "replay with a window of one": ("replay", ["algorithm.adv_estimator=asyttgrpo", "data.window_size=1"]),
}


FOUR = ["actor_rollout_ref.rollout.n=4", "trainer.total_training_steps=4"]
UNSHARED = [*FOUR, "actor_rollout_ref.prefix_sharing=off"]
EXTRA = ["algorithm.adv_estimator=onerpo", "data.extra_sampling_size=3", "trainer.total_training_steps=2"]
OTHERS = {
    "shared": ("grpo", FOUR),
    "unshared": ("grpo", UNSHARED),
    "verls": ("grpo", [*UNSHARED, "actor_rollout_ref.old_log_probs=recompute"]),
    "extra": ("bandit", EXTRA),
    "base-again": ("grpo", []),  # the base line once more, after all others
}


@pytest.fixture(scope="module")
def hosted(mini):
    """TWINS and OTHERS in the processes of one run."""
    runs = {"another-seed": mini.hosted("grpo", "another-seed", seed=1)}
    runs |= mini.together("equivalence", {**{name.replace(" ", "-"): run for name, run in TWINS.items()}, **OTHERS})
    for result in runs.values():
        assert result.status == 0, result.output
    return runs


def same_weights(a, b):
    wa, wb = a.weights(), b.weights()
    assert wa.keys() == wb.keys()
    assert all(torch.equal(wa[name], wb[name]) for name in wa)


def test_the_base_alone_trains(base_alone):
    steps = [record["step"] for record in base_alone.records]
    assert steps == list(range(STEPS + 1))
    last = base_alone.records[-1]
    assert last["actor/grad_norm"] > 0 and 0 < last["train/reward_mean"] < 1
    first = base_alone.records[1]
    assert abs(first["actor/ppo_kl"]) < 1e-6 and abs(first["actor/kl_loss"]) < 1e-9
    assert first["training/rollout_probs_diff_mean"] < 1e-5
    assert all(record["reward/failures"] == 0 for record in base_alone.records[1:])


def test_the_raw_reward_by_hand(base_alone):
    """n = 1: the advantage is the reward itself, so its mean is the mean reward and its variance that of the rewards."""
    samples = base_alone.samples()
    for record in base_alone.records[1:]:
        rewards = samples[samples.step == record["step"]].reward
        assert record["train/advantage_mean"] == pytest.approx(rewards.mean())
        assert record["train/advantage_var"] == pytest.approx(rewards.var(ddof=1))
        assert record["train/zero_advantage"] == pytest.approx((rewards == 0).mean())


@pytest.mark.parametrize("twin", TWINS)
def test_twins_of_the_base_alone(hosted, base_alone, twin):
    result = hosted[twin.replace(" ", "-")]
    assert result.metrics(leave_out=("replay/",)) == base_alone.metrics()
    assert result.samples().equals(base_alone.samples())
    same_weights(result, base_alone)


def test_runs_in_the_processes_of_others_are_those_alone(hosted, base_alone):
    """What a host carries over from run to run (Verl/cpu/host.py) changes no number."""
    again = hosted["base-again"]
    assert again.metrics() == base_alone.metrics()
    assert again.samples().equals(base_alone.samples())
    same_weights(again, base_alone)


def test_shared_prompts_and_own_log_probs_change_nothing_but_rounding(hosted):
    """A prompt computed once and old log-probabilities taken from the update, against verl's own passes; n = 4."""
    ours = hosted["shared"]
    for name in ("verls", "unshared"):
        verls = hosted[name]
        assert ours.metrics() != verls.metrics()  # they round otherwise: it was another way
        assert ours.samples()["text"].equals(verls.samples()["text"])
        for mine, other in zip(ours.metrics(), verls.metrics(), strict=True):
            assert mine.keys() == other.keys()
            for key in mine:
                assert mine[key] == pytest.approx(other[key], rel=2e-4, abs=2e-6), key
        for weight, value in ours.weights(4).items():
            # Adam divides by the gradient's size: where that is rounding alone, a step of the learning rate may differ.
            assert (value - verls.weights(4)[weight]).abs().mean() < 1e-6, weight


def test_another_seed_is_another_run(hosted, base_alone):
    ours, theirs = base_alone.samples(), hosted["another-seed"].samples()
    first = ours.step == 1
    assert list(ours[first]["index"]) != list(theirs[theirs.step == 1]["index"])  # another order
    assert list(ours.text) != list(theirs.text)


def test_extra_rollouts_pair_with_the_arm_without(hosted, base_alone):
    """onerpo's trained responses at step 1 are the base line's: same queries, same random numbers, same weights."""
    result = hosted["extra"]
    first = result.records[1]
    assert (first["ledger/responses_generated"], first["ledger/responses_trained"]) == (64, 16)
    assert first["ledger/extra_responses"] == 48
    ours, base = result.samples(), base_alone.samples()
    ours = ours[ours.step == 1]
    assert list(ours[ours.trained].text) == list(base[base.step == 1].text)
    assert len(ours[~ours.trained]) == 48 and set(ours[~ours.trained].rollout) == {1, 2, 3}
    assert first["train/reward_mean"] == base_alone.records[1]["train/reward_mean"]
    assert first["train/advantage_mean"] != base_alone.records[1]["train/advantage_mean"]
