"""Under which of a run's settings another setting changes anything: named predicates of a composed config.

A key may be read by nothing, or by code that the other settings do not reach. Each predicate says whether its part of
the code is reached, and `otherwise` says why it is not and which keys change that, so that a check can write

    f"{key}={value} changes nothing: {CONDITION.otherwise}"

No torch and no verl are imported here. Sources: verl 0.9.1, `verl/trainer/ppo/core_algos.py` (losses, estimators),
`verl/trainer/ppo/v1/trainer_base.py` (advantage, critic), and this package's trainer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl.trainer.ppo.estimators import WINDOW, Estimator, estimators, extra_responses

ONE_UPDATE = (
    "with one update per round PPO's ratio is 1, so nothing is clipped; set actor_rollout_ref.actor.ppo_epochs above 1 or "
    "actor_rollout_ref.actor.ppo_mini_batch_size below data.train_batch_size"
)


@dataclass(frozen=True)
class Condition:
    """`holds(config)`: whether the part is reached; `otherwise`: the reason and the keys, where it does not hold."""

    holds: Callable[[DictConfig], bool]
    otherwise: str

    def __call__(self, config: DictConfig) -> bool:
        return self.holds(config)


def _get(config: DictConfig, key: str, default: Any = None) -> Any:
    return OmegaConf.select(config, key, default=default)


def rewards_per_query(config: DictConfig) -> int:
    """Responses of one query that are drawn and scored in one step: trained and extra ones."""
    return config.actor_rollout_ref.rollout.n + extra_responses(config)


def updates_per_round(config: DictConfig) -> int:
    actor = config.actor_rollout_ref.actor
    return actor.ppo_epochs * (config.data.train_batch_size // actor.ppo_mini_batch_size)


def reads_ratio(config: DictConfig) -> bool:
    """Whether PPO's ratio can differ from 1: several updates per round, or the rollout's own log-probabilities as the
    old ones."""
    return updates_per_round(config) > 1 or bool(_get(config, "algorithm.rollout_correction.bypass_mode"))


def corrects_rollouts(config: DictConfig) -> bool:
    """Whether importance weights or a rejection mask are computed beside the loss (not verl's bypass mode)."""
    settings = _get(config, "algorithm.rollout_correction")
    return bool(settings) and not settings.bypass_mode and bool(settings.rollout_is or settings.rollout_rs)


def penalises_length(config: DictConfig) -> bool:
    return bool(_get(config, "reward.reward_kwargs.overlong_buffer_cfg.enable"))


def masking(config: DictConfig) -> str:
    """The setting that leaves whole responses out of the loss; empty: none does."""
    algorithm = config.algorithm
    if algorithm.mask_truncated:
        return "algorithm.mask_truncated=true"
    return "" if algorithm.train_on == "all" else f"algorithm.train_on={algorithm.train_on}"


def signal_is_reward(config: DictConfig) -> bool:
    """Whether the advantage is the reward itself: no baseline, or one of a query's other rewards, of which there are none."""
    name = config.algorithm.adv_estimator
    of_the_group = ("grpo", "onerpo", "arpo", "litepo", "rloo", "opo")
    return name == "reinforce" or (name in of_the_group and rewards_per_query(config) == 1)


def _estimator(config: DictConfig) -> Estimator | None:
    return estimators().get(config.algorithm.adv_estimator)


def divides_by_std(config: DictConfig) -> bool:
    """Whether advantages are divided by a std where norm_adv_by_std_in_grpo is true, of several rewards at least."""
    one = _estimator(config)
    if one is None or not one.divides_by_std:
        return False
    remembered = one.size is WINDOW and (config.data.window_size > 1 or config.algorithm.replay.baseline != "window")
    return remembered or rewards_per_query(config) > 1


_DIVIDE = [one.name for one in estimators().values() if one.divides_by_std]

SEVERAL_UPDATES = Condition(lambda config: updates_per_round(config) > 1, ONE_UPDATE)
RATIO_MOVES = Condition(reads_ratio, ONE_UPDATE)
SEVERAL_REWARDS = Condition(
    lambda config: rewards_per_query(config) > 1,
    "a query has one reward a step; set actor_rollout_ref.rollout.n above 1 (or, with onerpo, data.extra_sampling_size)",
)
FILTERS_GROUPS = Condition(
    lambda config: bool(_get(config, "algorithm.filter_groups.enable")), "set algorithm.filter_groups.enable=true"
)
PENALISES_LENGTH = Condition(penalises_length, "set reward.reward_kwargs.overlong_buffer_cfg.enable=true")
MASKS_TRUNCATED = Condition(lambda config: bool(_get(config, "algorithm.mask_truncated")), "set algorithm.mask_truncated=true")
CORRECTS_ROLLOUTS = Condition(
    corrects_rollouts, "set algorithm.rollout_correction.rollout_is or algorithm.rollout_correction.rollout_rs"
)
BYPASSES = Condition(
    lambda config: bool(_get(config, "algorithm.rollout_correction.bypass_mode")),
    "set algorithm.rollout_correction.bypass_mode=true",
)
HAS_KL_LOSS = Condition(
    lambda config: bool(config.actor_rollout_ref.actor.use_kl_loss), "set actor_rollout_ref.actor.use_kl_loss=true"
)
HAS_KL_IN_REWARD = Condition(
    lambda config: bool(config.algorithm.use_kl_in_reward),
    "algorithm.use_kl_in_reward is false (and not defined for our own estimators)",
)
HAS_ENTROPY_TERM = Condition(
    lambda config: config.actor_rollout_ref.actor.entropy_coeff != 0, "set actor_rollout_ref.actor.entropy_coeff"
)
DIVIDES_BY_STD = Condition(
    divides_by_std,
    f"this algorithm.adv_estimator divides by no std, or a query has one reward; {', '.join(_DIVIDE)} with several do",
)
DISCOUNTS = Condition(
    lambda config: (one := _estimator(config)) is not None and one.discounts,
    "a response has one reward, at its end; of the estimators here only reinforce_plus_plus discounts",
)
HAS_CRITIC = Condition(
    lambda config: config.algorithm.adv_estimator == "gae", "there is no critic here (algorithm.adv_estimator=gae is refused)"
)
SCALES_LOSS = Condition(
    lambda config: config.actor_rollout_ref.actor.loss_agg_mode == "seq-mean-token-sum-norm",
    "only actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm divides by it",
)
SHUFFLES_MINI_BATCHES = Condition(
    lambda config: bool(config.actor_rollout_ref.actor.shuffle) and updates_per_round(config) > 1,
    f"actor_rollout_ref.actor.shuffle is false or there is one mini-batch: {ONE_UPDATE}",
)


def updates_once(config: DictConfig) -> bool:
    """Whether the policy that is updated is still the one that the round began with, and nothing else asks for its
    log-probabilities beforehand: then the update's own forward pass gives them (Verl/adapter/own_log_probs.py)."""
    one = _estimator(config)
    return (
        config.actor_rollout_ref.old_log_probs == "auto"
        and not SEVERAL_UPDATES(config)
        and not corrects_rollouts(config)
        and not BYPASSES(config)
        and config.actor_rollout_ref.actor.policy_loss.loss_mode == "vanilla"
        and one is not None
        and one.formula is not None  # verl's estimators may read them before the update
        and not config.algorithm.use_kl_in_reward
    )


def loss_is(*modes: str) -> Condition:
    """Whether the policy loss is one of these."""
    return Condition(
        lambda config: config.actor_rollout_ref.actor.policy_loss.loss_mode in modes,
        f"only actor_rollout_ref.actor.policy_loss.loss_mode={' or '.join(modes)} reads it",
    )


# ---- what only the effect table asks for (Verl/trainer/effects.yaml) ------------------------------------------------

DECAYS_LR = Condition(
    lambda config: "cosine" in (_get(config, "actor_rollout_ref.actor.optim.warmup_style"),
                                _get(config, "actor_rollout_ref.actor.optim.lr_scheduler_type")),
    "the learning rate is constant; set actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
)  # fmt: skip
SEVERAL_MINI_BATCHES = Condition(
    lambda config: config.actor_rollout_ref.actor.ppo_mini_batch_size < config.data.train_batch_size,
    "there is one mini-batch; set actor_rollout_ref.actor.ppo_mini_batch_size below data.train_batch_size",
)
FIXED_MICRO_BATCHES = Condition(
    lambda config: not config.actor_rollout_ref.actor.use_dynamic_bsz,
    "micro batches are made by tokens (actor_rollout_ref.actor.use_dynamic_bsz=true); set "
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
)
DYNAMIC_MICRO_BATCHES = Condition(
    lambda config: bool(config.actor_rollout_ref.actor.use_dynamic_bsz),
    "micro batches have a fixed size; set actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
)
USES_VLLM = Condition(
    lambda config: config.actor_rollout_ref.rollout.name != "hf",
    "actor_rollout_ref.rollout.name=hf does not read it; vllm does",
)
USES_AGENT_LOOP = Condition(
    lambda config: not config.actor_rollout_ref.rollout.agent.agent_loop_manager_class.endswith("BatchedAgentLoopManager"),
    "rollouts are drawn a batch at a time here; verl's agent loop reads it, which actor_rollout_ref.rollout.name=vllm uses",
)
ON_A_GPU = Condition(
    lambda config: config.trainer.device == "cuda",
    "a CPU's runs of one seed are equal to the byte already; it is for trainer.device=cuda",
)
HAS_LORA = Condition(
    lambda config: bool(config.actor_rollout_ref.model.lora_rank), "set actor_rollout_ref.model.lora_rank above 0"
)
HAS_CUSTOM_REWARD = Condition(
    lambda config: bool(config.reward.custom_reward_function.path), "set reward.custom_reward_function.path"
)
TRACKS_VALUE = Condition(
    lambda config: _get(config, "algorithm.replay.baseline", "window") != "window",
    "a window forgets by itself; set algorithm.replay.baseline=ema or beta",
)
HAS_ADAPTIVE_KL = Condition(
    lambda config: bool(config.algorithm.use_kl_in_reward) and config.algorithm.kl_ctrl.type == "adaptive",
    "set algorithm.use_kl_in_reward=true with one of verl's estimators and algorithm.kl_ctrl.type=adaptive",
)
LOSS_IS_CLIP_COV, LOSS_IS_KL_COV = loss_is("clip_cov"), loss_is("kl_cov")
LOSS_IS_DRO, LOSS_IS_SAPO = loss_is("dro"), loss_is("sapo")


def _draws_final_samples(config: DictConfig) -> bool:
    rollout = config.actor_rollout_ref.rollout
    alike = all(rollout[key] == rollout.val_kwargs[key] for key in ("temperature", "top_p", "top_k"))
    more = rollout.val_kwargs.n == 1 or config.evaluation.final_samples > rollout.val_kwargs.n
    return alike and more and config.trainer.test_freq > 0 and config.evaluation.test_questions != 0


DRAWS_FINAL_SAMPLES = Condition(
    _draws_final_samples,
    "further answers are drawn where the test set is evaluated (trainer.test_freq above 0, evaluation.test_questions not 0), "
    "as training draws its own (temperature, top_p and top_k of actor_rollout_ref.rollout.val_kwargs as of "
    "actor_rollout_ref.rollout), and beyond actor_rollout_ref.rollout.val_kwargs.n",
)
