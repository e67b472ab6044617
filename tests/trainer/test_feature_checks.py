"""Settings that nothing would read, or that exclude each other, end in one sentence that names the key and what to do."""

import subprocess
import sys

import pytest

from Verl.errors import UserError
from Verl.trainer.feature_checks import check_features
from Verl.trainer.ppo.conditions import RATIO_MOVES, SEVERAL_UPDATES, updates_per_round
from Verl.trainer.settings import compose

A, R, F = "actor_rollout_ref.actor", "algorithm.rollout_correction", "algorithm.filter_groups"
O = "reward.reward_kwargs.overlong_buffer_cfg"  # noqa: E741
TWO_EPOCHS = f"{A}.ppo_epochs=2"
N2 = "actor_rollout_ref.rollout.n=2"
SOFT = [f"{O}.enable=true", f"{O}.len=8", f"{O}.penalty_factor=1.0", "data.max_response_length=12"]

REFUSED = [
    (["trainer.critic_warmup=100"], "trainer.critic_warmup=100.*leave it at 0"),
    # one update per round
    ([f"{A}.clip_ratio=0.3"], "clip_ratio=0.3 changes nothing.*ppo_epochs above 1 or .*ppo_mini_batch_size below"),
    ([f"{A}.clip_ratio_low=0.1"], "clip_ratio_low=0.1 changes nothing.*ppo_mini_batch_size"),
    ([f"{A}.clip_ratio_high=0.28"], "clip_ratio_high=0.28 changes nothing.*ppo_epochs"),
    ([f"{A}.clip_ratio_c=4"], "clip_ratio_c=4 changes nothing.*ppo_epochs"),
    *(([f"{A}.policy_loss.loss_mode={mode}"], f"loss_mode={mode} trains as vanilla.*ppo_epochs.*ppo_mini_batch_size")
      for mode in ("gspo", "cispo", "gpg", "kl_cov", "dppo_tv", "dppo_kl")),
    ([f"{A}.policy_loss.loss_mode=dro", f"{A}.policy_loss.dro_beta=0.1"], "loss_mode=dro trains as vanilla"),
    ([f"{A}.policy_loss.loss_mode=sapo", f"{A}.tau_neg=2"], "tau_neg=2 changes nothing.*ppo_epochs"),
    ([f"{A}.policy_loss.loss_mode=sapo", f"{A}.loss_agg_mode=seq-mean-token-mean"], "sapo trains as vanilla"),
    ([f"{A}.policy_loss.loss_mode=geo_mean", f"{A}.clip_ratio=0.4"], "clip_ratio=0.4 changes nothing"),
    # read by another loss
    ([TWO_EPOCHS, f"{A}.tau_pos=2"], "tau_pos=2 changes nothing.*loss_mode=sapo"),
    ([TWO_EPOCHS, f"{A}.policy_loss.loss_mode=gpg", f"{A}.clip_ratio=0.3"], "clip_ratio=0.3 changes nothing"),
    ([TWO_EPOCHS, f"{A}.policy_loss.loss_mode=gspo", f"{A}.clip_ratio_c=4"], "clip_ratio_c=4 changes nothing"),
    ([f"{A}.policy_loss.loss_mode=clip-cov"], "loss_mode=clip-cov is unknown.*clip_cov"),
    ([f"{A}.policy_loss.loss_mode=bypass_mode"], "bypass_mode=true"),
    ([TWO_EPOCHS, f"{A}.policy_loss.loss_mode=dro"], "dro_beta above 0"),
    # rollout correction
    ([f"{R}.rollout_is=seq"], "rollout_is=seq is unknown"),
    ([f"{R}.rollout_is=token", f"{R}.rollout_is_threshold=-1"], "rollout_is_threshold=-1 must be"),
    ([f"{R}.rollout_is=token", f"{R}.rollout_is_threshold='2_1'"], "rollout_is_threshold=2_1 must be"),
    ([f"{R}.rollout_is_threshold=3.0"], "rollout_is_threshold=3.0 changes nothing: set .*rollout_is"),
    ([f"{R}.rollout_is_batch_normalize=true"], "changes nothing: set .*rollout_is"),
    ([f"{R}.rollout_rs_threshold=2"], "changes nothing: set .*rollout_rs"),
    ([f"{R}.rollout_rs=token_k3"], "needs .*rollout_rs_threshold"),
    ([f"{R}.rollout_rs=token_k9", f"{R}.rollout_rs_threshold=1"], "rollout_rs=token_k9 is unknown"),
    ([f"{R}.rollout_rs=token_k3", f"{R}.rollout_rs_threshold='0.5_2'"], "rollout_rs_threshold=0.5_2 must be a number above 0"),
    ([f"{R}.rollout_rs=token_k1", f"{R}.rollout_rs_threshold=0.5_2"], "rollout_rs_threshold=0.52 must be .*quoted"),
    ([f"{R}.rollout_rs='token_k3,seq_max_k2'", f"{R}.rollout_rs_threshold='1,2,3'"], "3 entries for 2 options"),
    ([f"{R}.loss_type=reinforce"], "loss_type=reinforce changes nothing: set .*bypass_mode=true"),
    ([f"{R}.bypass_mode=true", f"{R}.rollout_is=token"], "rollout_is=token changes nothing in bypass mode.*reinforce"),
    ([f"{R}.bypass_mode=true", f"{A}.policy_loss.loss_mode=gspo"], "loss_mode=gspo would not be read"),
    ([f"{R}.bypass_mode=true", "algorithm.mask_truncated=true"], "exclude each other"),
    ([f"{R}.bypass_mode=true", "actor_rollout_ref.old_log_probs=recompute"], "exclude each other"),
    ([f"{R}.rollout_is=token", "actor_rollout_ref.rollout.calculate_log_probs=false"], "calculate_log_probs=False leaves out"),
    # groups
    ([f"{F}.enable=true"], "filter_groups.enable=true.*rollout.n above 1"),
    ([f"{F}.enable=true", N2, f"{F}.metric=acc"], "metric=acc is unknown: choose one of reward"),
    ([f"{F}.enable=true", N2, f"{F}.max_num_gen_batches=1"], "max_num_gen_batches=1 leaves nothing to refill"),
    ([f"{F}.enable=true", N2, f"{F}.max_inflight_gen_batches=2"], "max_inflight_gen_batches=2 changes nothing"),
    ([f"{F}.enable=true", N2, "data.gen_batch_size=64"], "data.gen_batch_size=64 is not read"),
    ([f"{F}.enable=true", N2, "algorithm.shuffle_rewards=true"], "exclude each other"),
    # overlong
    ([f"{O}.enable=true"], "needs .*overlong_buffer_cfg.len"),
    ([f"{O}.enable=true", f"{O}.len=8"], "needs .*penalty_factor"),
    ([f"{O}.enable=yes please"], "enable=yes please must be true or false"),
    ([*SOFT, f"{O}.len=0"], "len=0 must be a whole number of tokens"),
    ([*SOFT, f"{O}.len=2.5"], "len=2.5 must be a whole number"),
    ([*SOFT, f"{O}.len=13"], "len=13 is longer than data.max_response_length=12"),
    ([*SOFT, f"{O}.penalty_factor=0"], "penalty_factor=0 must be a number above 0"),
    ([*SOFT, f"{O}.buffer=1"], "there is no setting .*buffer"),
    ([*SOFT, "reward.reward_kwargs.max_resp_len=40"], "more than 32 tokens, which data.max_response_length=12 does not allow"),
    ([f"{O}.len=8"], "overlong_buffer_cfg.len=8 changes nothing: set .*enable=true"),
    (["reward.reward_kwargs.max_resp_len=8"], "max_resp_len=8 changes nothing"),
    (["reward.reward_kwargs.weight=1"], "reward.reward_kwargs.weight=1 is read by nothing"),
    # mask
    (["algorithm.mask_truncated=true", "actor_rollout_ref.rollout.ignore_eos=true"], "exclude each other"),
    (["algorithm.train_on=rihgt"], "choose all, right, wrong"),
    (["algorithm.train_on=wrong", "actor_rollout_ref.rollout.n=1"], "train on nothing"),
    (["algorithm.train_on=wrong", "algorithm.adv_estimator=reinforce"], "train on nothing"),
    (["algorithm.train_on=right", f"{R}.bypass_mode=true"], "exclude each other"),
    (["algorithm.train_on=right", f"{A}.shuffle=true", f"{A}.ppo_mini_batch_size=8"], "exclude each other"),
    (["algorithm.mask_truncated=true", f"{A}.shuffle=true", f"{A}.ppo_mini_batch_size=8"], "exclude each other"),
    # generations
    (["trainer.log_val_generations=4"], "log_val_generations=4 needs a logger that takes texts.*evaluations"),
    (["trainer.log_val_generations=-1"], "log_val_generations=-1 must be a whole number"),
]  # fmt: skip
ACCEPTED = [
    [],
    [f"{A}.clip_ratio=0.2", f"{A}.clip_ratio_low=null"],
    [TWO_EPOCHS, f"{A}.clip_ratio=0.3"],
    [f"{A}.ppo_mini_batch_size=8", f"{A}.clip_ratio_high=0.28", f"{A}.clip_ratio_c=10"],
    [f"{A}.ppo_mini_batch_size=8", f"{A}.policy_loss.loss_mode=gspo", f"{A}.clip_ratio_low=3e-4"],
    [f"{A}.policy_loss.loss_mode=geo_mean"],
    [f"{A}.policy_loss.loss_mode=sapo"],
    [f"{A}.policy_loss.loss_mode=clip_cov", f"{A}.policy_loss.clip_cov_ratio=0.01"],
    [f"{R}.rollout_is=token", f"{R}.rollout_is_threshold='0.5_5.0'"],
    [f"{R}.rollout_rs='token_k3,seq_sum_k1'", f"{R}.rollout_rs_threshold='0.1,0.5_2'"],
    [f"{R}.bypass_mode=true", f"{A}.clip_ratio=0.3"],
    [f"{R}.bypass_mode=true", f"{R}.loss_type=reinforce", f"{R}.rollout_is=sequence"],
    [f"{F}.enable=true", N2, f"{F}.metric=strict", f"{F}.max_num_gen_batches=10"],
    SOFT,
    [*SOFT, "reward.reward_kwargs.max_resp_len=10", f"{O}.log=true"],
    ["algorithm.mask_truncated=true", f"{A}.ppo_mini_batch_size=8"],
    ["algorithm.train_on=right"],  # what the base line's gradient is, without the tokens of wrong answers in the mean
    ["algorithm.train_on=wrong", N2, "algorithm.mask_truncated=true"],
    ["algorithm.train_on=wrong", "algorithm.adv_estimator=batchmean"],
    ["trainer.log_val_generations=4", "trainer.logger=[console,tensorboard]"],
]


@pytest.mark.parametrize("overrides, said", REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_refused(overrides, said):
    with pytest.raises(UserError, match=said) as caught:
        check_features(compose("grpo", overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", ACCEPTED, ids=" ".join)
def test_accepted(overrides):
    check_features(compose("grpo", overrides))


def test_extra_rollouts_make_groups_that_can_be_filtered():
    onerpo = ["algorithm.adv_estimator=onerpo", f"{F}.enable=true"]
    check_features(compose("bandit", [*onerpo, "data.extra_sampling_size=2"]))
    with pytest.raises(UserError, match="data.extra_sampling_size"):
        check_features(compose("bandit", onerpo))


def test_clip_ratio_sets_low_and_high_unless_they_are_given():
    for overrides, expected in (
        ([], (0.2, 0.2)),
        ([f"{A}.clip_ratio=0.3"], (0.3, 0.3)),
        ([f"{A}.clip_ratio=0.3", f"{A}.clip_ratio_high=0.4"], (0.3, 0.4)),
        ([f"{A}.clip_ratio_low=0.1"], (0.1, 0.2)),
    ):
        actor = compose("grpo", overrides).actor_rollout_ref.actor
        assert (actor.clip_ratio_low, actor.clip_ratio_high) == expected


def test_updates_per_round_by_hand():
    for overrides, updates in (([], 1), ([TWO_EPOCHS], 2), ([f"{A}.ppo_mini_batch_size=8"], 4),
                               ([TWO_EPOCHS, f"{A}.ppo_mini_batch_size=16"], 4)):  # fmt: skip
        config = compose("grpo", overrides)
        assert updates_per_round(config) == updates and SEVERAL_UPDATES(config) == RATIO_MOVES(config) == (updates > 1)
    assert RATIO_MOVES(compose("grpo", [f"{R}.bypass_mode=true"]))


def test_the_checks_import_no_torch():
    probe = "import sys, Verl.trainer.feature_checks; assert not {'torch', 'verl', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)
