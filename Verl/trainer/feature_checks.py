"""Checks of the features in docs/features.md, before Ray starts and without torch: each failure is one sentence."""

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.loss_checks import check_correction, check_loss
from Verl.trainer.ppo.conditions import SEVERAL_REWARDS, masking, penalises_length, signal_is_reward

FILTER = "algorithm.filter_groups"
OVERLONG = "reward.reward_kwargs.overlong_buffer_cfg"
TRAIN_ON = ("all", "right", "wrong")
FILTER_METRICS = ("reward", "score", "strict", "flexible", "format")
# verl's loggers that take texts (verl/utils/tracking.py, ValidationGenerationsLogger).
TEXT_LOGGERS = ("wandb", "swanlab", "mlflow", "trackio", "clearml", "tensorboard")


def check_features(config: DictConfig) -> None:
    """Raises UserError for the first setting of a feature that is wrong or that nothing would read."""
    for part in (_critic, check_loss, check_correction, _filter, _overlong, _mask, _generations):
        part(config)


def _critic(config: DictConfig) -> None:
    warmup = config.trainer.critic_warmup
    if warmup:
        raise UserError(
            f"trainer.critic_warmup={warmup} would leave out the first updates of the policy, to train a critic that does not "
            "exist here: leave it at 0"
        )


def _filter(config: DictConfig) -> None:
    settings = config.algorithm.filter_groups
    if not settings or not settings.enable:
        return
    if not SEVERAL_REWARDS(config):
        raise UserError(f"{FILTER}.enable=true compares the rewards of a query, but {SEVERAL_REWARDS.otherwise}")
    if settings.metric not in FILTER_METRICS:
        raise UserError(f"{FILTER}.metric={settings.metric} is unknown: choose one of {', '.join(FILTER_METRICS)}")
    limit = settings.max_num_gen_batches
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise UserError(f"{FILTER}.max_num_gen_batches={limit} must be a whole number (0: no limit)")
    if limit == 1:
        raise UserError(f"{FILTER}.max_num_gen_batches=1 leaves nothing to refill a batch with: choose 0 or at least 2")
    if settings.max_inflight_gen_batches != 1:
        raise UserError(
            f"{FILTER}.max_inflight_gen_batches={settings.max_inflight_gen_batches} changes nothing: refills are drawn one "
            "after the other, so that a seed gives the same run twice; leave it at 1"
        )
    if config.data.gen_batch_size not in (None, 1):
        raise UserError(
            f"data.gen_batch_size={config.data.gen_batch_size} is not read with {FILTER}.enable=true: a refill draws as many "
            "queries as are missing; leave it out"
        )
    if config.algorithm.shuffle_rewards:
        raise UserError(
            f"algorithm.shuffle_rewards=true and {FILTER}.enable=true exclude each other: groups would be kept by rewards that "
            "do not train; unset one of them"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise UserError(
            f"{FILTER}.enable=true needs rewards while a batch is drawn: give the reward model its own resources "
            "(reward.reward_model.enable_resource_pool=true), or score by rule"
        )


def _overlong(config: DictConfig) -> None:
    kwargs = config.reward.get("reward_kwargs") or {}
    for key in kwargs:
        if key not in ("overlong_buffer_cfg", "max_resp_len"):
            raise UserError(
                f"reward.reward_kwargs.{key}={kwargs[key]} is read by nothing: arguments of your own function go into "
                "reward.custom_reward_function.reward_kwargs"
            )
    settings = kwargs.get("overlong_buffer_cfg") or {}
    for key in settings:
        if key not in ("enable", "len", "penalty_factor", "log"):
            raise UserError(f"there is no setting {OVERLONG}.{key}: choose from enable, len, penalty_factor, log")
    for key in ("enable", "log"):
        if key in settings and not isinstance(settings[key], bool):
            raise UserError(f"{OVERLONG}.{key}={settings[key]} must be true or false")
    if not penalises_length(config):
        given = [f"reward.reward_kwargs.{key}" for key in kwargs if key == "max_resp_len"]
        given += [f"{OVERLONG}.{key}" for key in settings if key != "enable"]
        if given:
            raise UserError(
                f"{given[0]}={OmegaConf.select(config, given[0])} changes nothing: set {OVERLONG}.enable=true"
            )
        return
    _overlong_numbers(config)


def _overlong_numbers(config: DictConfig) -> None:
    settings, longest = config.reward.reward_kwargs.overlong_buffer_cfg, config.data.max_response_length
    for key in ("len", "penalty_factor"):
        if settings.get(key) is None:
            raise UserError(f"{OVERLONG}.enable=true needs {OVERLONG}.{key}")
    size, factor = settings.len, settings.penalty_factor
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"{OVERLONG}.len={size} must be a whole number of tokens, at least 1")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise UserError(f"{OVERLONG}.penalty_factor={factor} must be a number above 0")
    whole = config.reward.reward_kwargs.get("max_resp_len")
    limit = longest if whole is None else whole
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UserError(f"reward.reward_kwargs.max_resp_len={limit} must be a whole number of tokens, at least 1")
    name = "data.max_response_length" if whole is None else "reward.reward_kwargs.max_resp_len"
    if size > limit:
        raise UserError(f"{OVERLONG}.len={size} is longer than {name}={limit}: choose at most that")
    if limit - size >= longest:
        raise UserError(
            f"reward.reward_kwargs.max_resp_len={limit} and {OVERLONG}.len={size} penalise responses of more than "
            f"{limit - size} tokens, which data.max_response_length={longest} does not allow: lower max_resp_len or raise len"
        )


def _mask(config: DictConfig) -> None:
    if config.algorithm.train_on not in TRAIN_ON:
        raise UserError(f"algorithm.train_on={config.algorithm.train_on} is unknown: choose {', '.join(TRAIN_ON)}")
    if config.algorithm.train_on == "wrong" and signal_is_reward(config):
        raise UserError(
            "algorithm.train_on=wrong would train on nothing: without a baseline a wrong response's signal is its reward, 0; "
            "choose an estimator that compares a query's responses, with actor_rollout_ref.rollout.n above 1"
        )
    masks = masking(config)
    if not masks:
        return
    if config.algorithm.mask_truncated and config.actor_rollout_ref.rollout.ignore_eos:
        raise UserError(
            "algorithm.mask_truncated=true and actor_rollout_ref.rollout.ignore_eos=true exclude each other: every response "
            "would be cut off and nothing would train; unset one of them"
        )
    actor = config.actor_rollout_ref.actor
    if actor.shuffle and actor.ppo_mini_batch_size < config.data.train_batch_size:
        raise UserError(
            f"{masks} and actor_rollout_ref.actor.shuffle=true exclude each other with several mini batches: a mini batch of "
            "nothing but responses that are left out has no mean to take; unset one of them"
        )


def _generations(config: DictConfig) -> None:
    count, names = config.trainer.log_val_generations, config.trainer.logger
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise UserError(f"trainer.log_val_generations={count} must be a whole number, at least 0")
    names = [names] if isinstance(names, str) else list(names)
    if count and not set(names) & set(TEXT_LOGGERS):
        raise UserError(
            f"trainer.log_val_generations={count} needs a logger that takes texts (trainer.logger: {', '.join(TEXT_LOGGERS)}); "
            "without one read the generations in <run>/evaluations, or set trainer.validation_data_dir"
        )
