"""One seed for everything, and names that say what a run does."""

import pytest
from omegaconf import OmegaConf

from Verl.errors import UserError
from Verl.seeds import derive, rollout_seed
from Verl.trainer.naming import comparable, composed_arm, config_hash, name_run, variant


def test_streams_are_apart_and_fixed():
    # The numbers themselves are part of every published result: they must not move with a version or a machine.
    assert derive(0, "rollout", 3) == 5866481908479691233
    seeds = {
        rollout_seed(seed, step, source, index, rollout, validate)
        for seed in range(2)
        for step in range(5)
        for source in ("a", "b")
        for index in range(20)
        for rollout in range(8)
        for validate in (False, True)
    }
    assert len(seeds) == 2 * 5 * 2 * 20 * 8 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def config(estimator="grpo", batch=32, n=8, **data):
    return OmegaConf.create(
        {
            "seed": 4,
            "algorithm": {"adv_estimator": estimator},
            "data": {"train_batch_size": batch, "seed": 4, **data},
            "actor_rollout_ref": {"rollout": {"n": n, "seed": 4}, "actor": {"optim": {"lr": 1e-6}}},
            "run": {"arm": None, "variant": None, "model": "tiny", "data": "arith", "name": "x"},
            "trainer": {"logger": ["console"], "total_training_steps": 10},
        }
    )


@pytest.mark.parametrize(
    "made, arm",
    [
        (config(), "grpo_0032_8"),
        (config("onerpo", 32, 1, extra_sampling_size=7), "onerpo_0032_1_7"),
        (config("arpo", 32, 8, extra_sampling_size=0), "arpo_0032_8"),
        (config("asyttgrpo", 2048, 1, window_size=8), "asyttgrpo_2048_1_8"),
    ],
)
def test_an_arm_is_named_by_its_settings(made, arm):
    assert composed_arm(made) == arm
    assert name_run(made, []) == (arm, f"{arm}_tiny_arith_seed4")


def test_a_name_that_contradicts_its_settings():
    made = config()
    made.run.arm = "grpo_0032_16"
    with pytest.raises(UserError, match="run.arm=grpo_0032_16 contradicts.*grpo_0032_8"):
        name_run(made, [])
    made.run.arm = "my_word"  # not an arm's name: anyone may call a run what they like
    assert name_run(made, [])[1] == "my_word_tiny_arith_seed4"


def test_only_what_changes_numbers_is_in_the_variant():
    assert variant(["actor_rollout_ref.actor.optim.lr=1e-3", "trainer.logger=[console]", "seed=3"]) == "lr-1e-3"
    assert variant(["data.train_batch_size=64", "trainer.total_training_steps=5"]) == ""


def test_the_hash_sees_everything_but_seed_and_bookkeeping():
    one, other = config(), config()
    other.seed = other.data.seed = other.actor_rollout_ref.rollout.seed = 5
    other.run.name, other.trainer.logger, other.trainer.total_training_steps = "y", ["file"], 99
    assert config_hash(one) == config_hash(other)
    assert comparable(one, True) != comparable(other, True)
    other.actor_rollout_ref.actor.optim.lr = 1e-5
    assert config_hash(one) != config_hash(other)
