"""Checks of a composed config, before Ray starts. Each failure is one sentence: the key, the value, what to do."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.benchmarks import check_benchmarks
from Verl.trainer.best import check_best
from Verl.trainer.determinism import check_determinism
from Verl.trainer.feature_checks import check_features
from Verl.trainer.lora_checks import check_lora
from Verl.trainer.memory import gpus
from Verl.trainer.ppo.estimators import EXTRA, Estimator, estimators, ours, usable
from Verl.trainer.reward_checks import check_custom_function, check_time_limit
from Verl.trainer.run_checks import check_resume

# key: (smallest, largest, whole number); None: no bound. Smallest is inclusive unless the text says "above".
BOUNDS: dict[str, tuple[float | None, float | None, bool]] = {
    "seed": (0, 2**31 - 1, True),
    "data.train_batch_size": (1, None, True),
    "data.max_prompt_length": (1, None, True),
    "data.max_response_length": (1, None, True),
    "data.extra_sampling_size": (0, None, True),
    "data.window_size": (1, None, True),
    "algorithm.replay.min_history": (1, None, True),
    "algorithm.replay.decay": (0, 1, False),
    "actor_rollout_ref.model.lora_rank": (0, None, True),
    "actor_rollout_ref.model.lora_alpha": (1, None, True),
    "actor_rollout_ref.rollout.n": (1, None, True),
    "actor_rollout_ref.rollout.top_p": (1e-9, 1, False),
    "actor_rollout_ref.rollout.temperature": (1e-9, None, False),
    "actor_rollout_ref.rollout.max_num_seqs": (1, None, True),
    "actor_rollout_ref.rollout.gpu_memory_utilization": (0.01, 0.99, False),
    "actor_rollout_ref.rollout.val_kwargs.n": (1, None, True),
    "actor_rollout_ref.rollout.val_kwargs.temperature": (0, None, False),
    "actor_rollout_ref.rollout.val_kwargs.top_p": (1e-9, 1, False),
    "actor_rollout_ref.actor.optim.lr": (0, 1, False),
    "actor_rollout_ref.actor.optim.weight_decay": (0, None, False),
    "actor_rollout_ref.actor.clip_ratio": (0, 1, False),
    "actor_rollout_ref.actor.kl_loss_coef": (0, None, False),
    "actor_rollout_ref.actor.ppo_mini_batch_size": (1, None, True),
    "actor_rollout_ref.actor.ppo_epochs": (1, None, True),
    "evaluation.val_freq": (-1, None, True),
    "evaluation.train_questions": (-1, None, True),
    "evaluation.val_questions": (-1, None, True),
    "evaluation.test_questions": (-1, None, True),
    "evaluation.final_samples": (1, None, True),
    "trainer.test_freq": (-1, None, True),
    "trainer.save_freq": (-1, None, True),
    "trainer.n_gpus_per_node": (1, None, True),
    "trainer.nnodes": (1, None, True),
    "trainer.total_epochs": (1, None, True),
    "trainer.total_training_steps": (1, None, True),
    "trainer.max_actor_ckpt_to_keep": (1, None, True),
    "samples.max_gb": (0, None, False),
    "reward.timeout_seconds": (1e-9, None, False),
    "budget.generated_tokens": (1, None, True),
    "budget.gradient_samples": (1, None, True),
    "budget.hours": (1e-9, None, False),
    "budget.patience": (1, None, True),
}
REWARD_RULES = ("strict", "lenient", "flexible", "format", "random")
LOGGERS = {"console": None, "file": None, "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow",
           "swanlab": "swanlab", "trackio": "trackio", "clearml": "clearml"}  # fmt: skip


def check(config: DictConfig, algorithm: str) -> None:
    """Every setting that can be known to be wrong before a process is started, whatever the machine.

    Raises:
        UserError: for the first.
    """
    for part in (_bounds, _batches, check_resume, check_best, check_benchmarks, _reward, _loggers, _writable):
        part(config)
    _estimator(config, algorithm)
    check_features(config)
    check_lora(config)
    check_determinism(config)


def _bounds(config: DictConfig) -> None:
    for key, (low, high, whole) in BOUNDS.items():
        value = OmegaConf.select(config, key, default=None)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (whole and not float(value).is_integer()):
            raise UserError(f"{key}={value} must be a {'whole ' if whole else ''}number")
        if low is not None and value < low:
            raise UserError(f"{key}={value} is too small: it must be {'above 0' if low == 1e-9 else f'at least {low}'}")
        if high is not None and value > high:
            raise UserError(f"{key}={value} is too large: it must be at most {high}")


def _estimator(config: DictConfig, algorithm: str) -> None:
    name = config.algorithm.adv_estimator
    key, one = f"algorithm.adv_estimator={name}", estimators().get(name)
    if one is not None and one.entry != algorithm:
        raise UserError(f"{key} belongs to Verl.trainer.main_ppo_{one.entry}: start it with that entry point")
    if one is None:
        raise UserError(f"{key} is unknown to main_ppo_{algorithm}: choose one of {', '.join(sorted(usable(algorithm)))}")
    if one.refused:
        raise UserError(f"{key} can't be used: {one.refused}")
    if one.needs_several and config.actor_rollout_ref.rollout.n == 1:
        raise UserError(f"{key} needs actor_rollout_ref.rollout.n of at least 2, not 1: {one.needs_several}")
    _check_extra(config, one)
    if algorithm == "replay" and config.algorithm.replay.baseline not in ("window", "ema", "beta"):
        raise UserError(
            f"algorithm.replay.baseline={config.algorithm.replay.baseline} is unknown: choose window, ema or beta"
        )
    for required, (value, why) in one.requires.items():
        if OmegaConf.select(config, required) != value:
            raise UserError(f"{key} {why}: leave {required}={value}")
    if config.algorithm.use_kl_in_reward and name in ours():
        raise UserError("algorithm.use_kl_in_reward=True is not defined for outcome rewards here: use the KL loss instead")


def _check_extra(config: DictConfig, one: Estimator) -> None:
    """Extra responses are drawn for the estimators that read their rewards, and for no other."""
    extra = OmegaConf.select(config, EXTRA.key, default=0)
    if extra and one.size is not EXTRA:
        readers = " or ".join(other.name for other in estimators().values() if other.size is EXTRA)
        raise UserError(f"{EXTRA.key}={extra} has no effect on {one.name}: set it to 0, or choose {readers}")


def _batches(config: DictConfig) -> None:
    size, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if size % mini:
        raise UserError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} does not divide data.train_batch_size={size}: choose a "
            "divisor (the study makes one update per round: leave it equal)"
        )
    n, processes = config.actor_rollout_ref.rollout.n, gpus(config)
    if mini * n % processes:
        raise UserError(
            f"trainer.n_gpus_per_node={config.trainer.n_gpus_per_node} and trainer.nnodes={config.trainer.nnodes} can't share "
            f"out an update evenly: make actor_rollout_ref.actor.ppo_mini_batch_size={mini} times "
            f"actor_rollout_ref.rollout.n={n} a multiple of {processes}, or take fewer processes"
        )
    actor, longest = config.actor_rollout_ref.actor, config.data.max_prompt_length + config.data.max_response_length
    if actor.use_dynamic_bsz and actor.ppo_max_token_len_per_gpu < longest:
        raise UserError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} can't hold the longest "
            f"prompt and response ({longest} tokens): raise it, or lower data.max_prompt_length or data.max_response_length"
        )
    evaluation = config.actor_rollout_ref.rollout.val_kwargs
    if not evaluation.do_sample and evaluation.temperature > 0:
        raise UserError(
            f"actor_rollout_ref.rollout.val_kwargs.do_sample={evaluation.do_sample} with temperature="
            f"{evaluation.temperature:g}: nothing reads do_sample; for greedy answers set val_kwargs.temperature=0"
        )


def _reward(config: DictConfig) -> None:
    if config.reward.rule not in REWARD_RULES:
        raise UserError(f"reward.rule={config.reward.rule} is unknown: choose one of {', '.join(REWARD_RULES)}")
    custom = config.reward.custom_reward_function
    check_time_limit(config)
    if custom.path:
        check_custom_function(str(custom.path), str(custom.name))
    if OmegaConf.select(config, "custom_reward_function.path"):
        raise UserError("custom_reward_function.path is verl's old name: set reward.custom_reward_function.path")


def _loggers(config: DictConfig) -> None:
    names = config.trainer.logger
    for name in [names] if isinstance(names, str) else names:
        if name not in LOGGERS:
            raise UserError(f"trainer.logger={name} is unknown: choose from {', '.join(LOGGERS)}")
        package = LOGGERS[name]
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"trainer.logger={name} needs the package {package}: `{sys.executable} -m pip install {package}` "
                "(requirements-trackers.txt names the version), or leave it out"
            )


def _writable(config: DictConfig) -> None:
    existing = folder = Path(config.run.result_dir)
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"run.result_dir={folder} can't be written to: no permission in {existing}")
