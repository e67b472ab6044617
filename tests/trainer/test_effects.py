"""The effect table: it has every key, it is what was measured, and what changes nothing is refused when it is typed."""

import json

import pytest

from tests.benchmarks import effects as measured
from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import effects, overrides
from Verl.trainer.ppo import conditions

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
SCRIPT = "run_grpo_0032_8_tiny_arith.sh"


@pytest.fixture(scope="module")
def keys():
    return measured.known_keys()


def test_every_key_has_a_row_and_every_row_a_key(keys):
    assert not [key for key in keys if effects.effect_of(key) is None]
    for row in effects.table():  # a group may stand for keys of the user's own, which no default names
        assert any(row.covers(key) for key in keys) or row.key.startswith(overrides.OPEN_DICTS), row.key


def test_rows_say_what_they_must():
    for row in effects.table():
        assert row.what in effects.CLASSES, row.key
        assert row.when is None or isinstance(getattr(conditions, row.when), conditions.Condition), row.key
        assert row.what != "nothing" or row.why, f"{row.key} changes nothing: say why"


def test_the_table_is_what_was_measured(keys):
    results = json.loads(measured.RESULTS.read_text())
    assert not measured.disagreements(results)
    wanted = {key for key in keys if not effects.effect_of(key).is_group and effects.effect_of(key).measured}
    assert wanted == results.keys()
    assert measured.PAGE.read_text() == measured.page()


# What was accepted and trained nothing: each ends in one sentence with what to do.
REFUSED = {
    f"{ACTOR}.clip_ratio=0.3": "ppo_epochs",
    f"{ACTOR}.clip_ratio_low=0.3": "ppo_epochs",
    f"{ACTOR}.clip_ratio_high=0.3": "ppo_epochs",
    f"{ACTOR}.clip_ratio_c=4": "ppo_epochs",
    f"{ACTOR}.policy_loss.loss_mode=gspo": "ppo_epochs",
    f"{ACTOR}.grad_clip=0.5": "optim.clip_grad",
    f"{ACTOR}.loss_scale_factor=7": "seq-mean-token-sum-norm",
    "algorithm.use_pf_ppo=true": "V1 trainer",
    "algorithm.gamma=0.9": "reinforce_plus_plus",
    "algorithm.lam=0.9": "critic",
    "algorithm.kl_penalty=abs": "use_kl_in_reward",
    "algorithm.kl_ctrl.kl_coef=0.1": "use_kl_in_reward",
    "reward.reward_kwargs.overlong_buffer_cfg.len=4": "overlong_buffer_cfg.enable",
    "trainer.log_val_generations=3": "trainer.logger",
    "trainer.critic_warmup=100": "no critic",
    "evaluation.final_samples=4 trainer.test_freq=-1": "trainer.test_freq",
    "evaluation.final_samples=4 actor_rollout_ref.rollout.val_kwargs.temperature=0.5": "temperature, top_p",
    "evaluation.final_samples=4 actor_rollout_ref.rollout.val_kwargs.n=4": "val_kwargs.n",
    "algorithm.rollout_correction.rollout_is_threshold=3": "rollout_is",
    "algorithm.filter_groups.metric=format": "filter_groups.enable",
    f"{ROLLOUT}.enforce_eager=true": "vllm",
    "critic.optim.lr=1": "critic",
    "trainer.v1.separate_async.parameter_sync_step=2": "synchronous",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_changes_nothing_is_refused(text):
    with pytest.raises(UserError) as refusal:
        shipped.prepare(SCRIPT, text.split())
    said = str(refusal.value)
    assert said.startswith(text.split("=")[0]) and REFUSED[text] in said and "\n" not in said


ACCEPTED = [
    [f"{ACTOR}.clip_ratio=0.3", f"{ACTOR}.ppo_epochs=2"],
    [f"{ACTOR}.clip_ratio=0.3", f"{ACTOR}.ppo_mini_batch_size=16"],
    [f"{ACTOR}.clip_ratio=0.2"],  # what it is anyway
    ["algorithm.gamma=1.0"],
    ["algorithm.gamma=0.9", "algorithm.adv_estimator=reinforce_plus_plus"],
    [f"{ACTOR}.loss_scale_factor=7", f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm"],
    ["evaluation.final_samples=1"],
    ["actor_rollout_ref.rollout.val_kwargs.temperature=0"],  # what the script's final_samples can't go with is not refused
    ["trainer.save_freq=7", "trainer.logger=[console,file]", f"{ACTOR}.ppo_max_token_len_per_gpu=2048"],
]


@pytest.mark.parametrize("texts", ACCEPTED)
def test_what_changes_something_is_not(texts):
    shipped.prepare(SCRIPT, texts)


def test_a_setting_can_be_inert_in_one_arm_and_not_in_another():
    """Dividing by the std changes nothing where a query has one reward."""
    text = "algorithm.norm_adv_by_std_in_grpo=False"
    shipped.prepare(SCRIPT, [text])
    with pytest.raises(UserError, match=r"norm_adv_by_std_in_grpo=false changes nothing: .*one reward"):
        shipped.prepare("run_grpo_0032_1_tiny_arith.sh", [text])
