"""One seed for everything, and names that say what a run does."""

import pytest
from omegaconf import OmegaConf

from Verl.errors import UserError
from Verl.seeds import derive, rollout_seed
from Verl.study import shipped
from Verl.trainer import effects, naming, settings
from Verl.trainer.naming import comparable, composed_arm, config_hash, name_run
from Verl.trainer.overrides import keys_of


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


SCRIPT = "run_grpo_0032_8_tiny_arith.sh"


def named(*overrides):
    """The name of the shipped run with what a user typed after it."""
    return shipped.prepare(SCRIPT, overrides).name.removesuffix("_tiny_arith_seed0").removeprefix("grpo_0032_8")


@pytest.mark.parametrize(
    "typed, words",
    [
        (["actor_rollout_ref.actor.optim.lr=1e-3", "trainer.logger=[console]"], "_lr-1e-3"),
        (["actor_rollout_ref.actor.optim.lr=-0.0"], "_lr--0.0"),  # a sign is part of a value
        (["data.train_batch_size=32", "trainer.total_training_steps=5"], ""),
        (["actor_rollout_ref.rollout.temperature=0.7"], "_rollout.temperature-0.7"),
        (["actor_rollout_ref.rollout.val_kwargs.temperature=0.7"], "_val_kwargs.temperature-0.7"),
        (["+actor_rollout_ref.model.override_config.attention_dropout=0.1"], "_attention_dropout-0.1"),
    ],
)
def test_a_typed_key_is_its_shortest_suffix_that_no_other_key_has(typed, words):
    assert named(*typed) == words


@pytest.mark.parametrize(
    "one, other",
    [
        (["trainer.project_name=a", "data.apply_chat_template_kwargs={a: 1}"], ["data.apply_chat_template_kwargs={a: 2}"]),
        (["actor_rollout_ref.actor.optim.betas=[0.9,0.95]"], ["actor_rollout_ref.actor.optim.betas=[0.9, 0.99]"]),
        (["reward.custom_reward_function.path=tests/conftest.py", "reward.custom_reward_function.name=pytest"],
         ["reward.custom_reward_function.path=tests/runs/conftest.py", "reward.custom_reward_function.name=pytest"]),
        (["actor_rollout_ref.rollout.top_k=1"], ["actor_rollout_ref.rollout.top_k=-1"]),
        # Of two values for a key the last one counts.
        (["actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.actor.optim.lr=1e-4"],
         ["actor_rollout_ref.actor.optim.lr=1e-4", "actor_rollout_ref.actor.optim.lr=1e-3"]),
        (["actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.rollout.n=8"],
         ["actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.rollout.n=4"]),
    ],
)  # fmt: skip
def test_different_settings_never_share_a_name(one, other):
    assert named(*one) != named(*other)


def test_every_key_that_changes_training_is_in_the_name_and_no_two_share_one():
    """But what the arm's own name says, and how far the run goes."""
    known = set(keys_of(settings.compose("replay", ["model=tiny", "data=arith", "trainer.device=cpu"])))
    rows = [row for row in effects.table() if row.what == "training" and not row.is_group]
    names = {row.key: naming.variant([f"{row.key}=0.123"], known) for row in rows}
    without = {key for key, name in names.items() if not name}
    elsewhere = {*naming._IN_THE_ARM, *naming._LENGTH, "seed"}
    assert {key for key in without if not key.startswith("budget.")} <= elsewhere
    assert len(names) > 50 and len({name for name in names.values() if name}) == len(names) - len(without)


def test_the_model_and_the_data_that_are_typed_are_in_the_name(tmp_path):
    paths = {}
    for folder in ("a", "b"):
        (tmp_path / folder / "tiny").mkdir(parents=True)
        (tmp_path / folder / "tiny/config.json").write_text('{"model_type": "qwen2"}')
        paths[folder] = named(f"actor_rollout_ref.model.path={tmp_path}/{folder}/tiny")
    assert paths["a"] != paths["b"]  # though both are called tiny
    assert all(name.startswith("_model.path-tiny_h") for name in paths.values())
    keys = ["data.train_files", "data.val_files", "data.test_files"]
    files = ("a/mine.parquet", "b/mine.parquet", "[a/mine.parquet,b/more.parquet]")
    typed = [[f"{key}={file}"] for key in keys for file in files]
    names = [naming.variant(one, keys) for one in typed]
    assert len(set(names)) == len(typed)
    assert names[0].startswith("train_files-mine_h") and names[2].startswith("train_files-mine+more_h")


def test_many_overrides_make_a_short_name_and_still_their_own():
    keys = ["actor_rollout_ref.actor.optim.weight_decay", "actor_rollout_ref.actor.kl_loss_coef", "seed",
            "actor_rollout_ref.actor.entropy_coeff", "actor_rollout_ref.rollout.temperature", "data.max_prompt_length",
            "actor_rollout_ref.rollout.val_kwargs.temperature", "actor_rollout_ref.rollout.val_kwargs.top_p",
            "actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"]  # fmt: skip
    values = ["0.05", "0.002", "3", "0.003", "0.7", "15", "0.9", "0.95", "1e-3", "4000"]
    typed = [f"{key}={value}" for key, value in zip(keys, values)]
    name = shipped.prepare(SCRIPT, typed).name
    assert len(name) < 120 and name.endswith("_tiny_arith_seed3") and "_kl_loss_coef-0.002_" in name
    assert shipped.prepare(SCRIPT, typed[::-1]).name == name  # their order says nothing
    others = {shipped.prepare(SCRIPT, [*typed[:-1], f"{keys[-1]}={value}"]).name for value in ("4001", "4002")}
    assert len({name, *others}) == 3
    assert name.replace("seed3", "seed5") == shipped.prepare(SCRIPT, [*typed, "seed=5"]).name  # one arm, two seeds


def test_every_key_has_a_short_form_of_its_own():
    known = list(keys_of(settings.defaults("replay", "cpu")))
    short = {naming.short_key(key, known) for key in known}
    assert len(short) == len(known)
    assert naming.short_key("actor_rollout_ref.actor.optim.lr", known) == "lr"
    assert naming.short_key("critic.optim.lr", known) == "critic.optim.lr"


@pytest.mark.parametrize("words", [["run.variant=a/b"], ["run.model=my_model"], [f"run.arm={'long' * 40}"]])
def test_what_can_be_no_name(words):
    with pytest.raises(UserError, match="name"):
        named(*words)


def test_a_free_name_does_not_hide_the_settings():
    assert named("run.arm=mine", "data.train_batch_size=64") == "mine_train_batch_size-64"


def test_what_is_measured_is_part_of_a_runs_identity():
    plain, fewer = (shipped.prepare(SCRIPT, extra) for extra in ([], ["evaluation.test_questions=100"]))
    assert plain.name == fewer.name and plain.hash != fewer.hash  # the same arm, but its numbers do not go together
    assert plain.hash == shipped.prepare(SCRIPT, ["evaluation.val_freq=5", "trainer.test_freq=5"]).hash


def test_the_number_of_steps_counts_where_the_learning_rate_follows_it():
    decay = ["actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"]
    longer = ["trainer.total_training_steps=200"]
    assert shipped.prepare(SCRIPT, longer).hash == shipped.prepare(SCRIPT).hash
    assert shipped.prepare(SCRIPT, [*decay, *longer]).hash != shipped.prepare(SCRIPT, decay).hash


def test_the_hash_sees_everything_but_seed_and_bookkeeping():
    one, other = config(), config()
    other.seed = other.data.seed = other.actor_rollout_ref.rollout.seed = 5
    other.run.name, other.trainer.logger, other.trainer.total_training_steps = "y", ["file"], 99
    assert config_hash(one) == config_hash(other)
    assert comparable(one, True) != comparable(other, True)
    other.actor_rollout_ref.actor.optim.lr = 1e-5
    assert config_hash(one) != config_hash(other)
