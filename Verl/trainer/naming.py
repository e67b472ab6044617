"""A run is named by what it does: <arm>_<model>_<data>_seed<k>, arm = <estimator>_<batch>_<rollouts>[_<extra|window>]."""

import hashlib
import json
import re

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError

# What an override changes that is already in the name, or that does not change what a run computes.
_IN_THE_NAME = (
    "data.train_batch_size", "actor_rollout_ref.rollout.n", "algorithm.adv_estimator", "data.extra_sampling_size",
    "data.window_size", "seed", "actor_rollout_ref.model.path", "data.train_files", "data.val_files", "data.test_files",
)  # fmt: skip
_NO_EFFECT = (
    "run.", "samples.", "budget.", "ray_kwargs.", "global_profiler.", "trainer.device", "trainer.logger", "trainer.save_freq",
    "trainer.test_freq", "trainer.total_training_steps", "trainer.total_epochs", "trainer.resume", "trainer.project_name",
    "trainer.experiment_name", "trainer.default_local_dir", "trainer.max_", "trainer.val_before_train", "evaluation.",
    "actor_rollout_ref.rollout.trace.",  # carries the run's name, and so its seed
)  # fmt: skip
_SEEDS = ("seed", "data.seed", "actor_rollout_ref.rollout.seed", "actor_rollout_ref.actor.data_loader_seed",
          "actor_rollout_ref.actor.fsdp_config.seed")  # fmt: skip
_ARM = re.compile(r"^(?P<estimator>[a-z_]+?)_(?P<batch>\d{4})_(?P<n>\d+)(?:_(?P<last>\d+))?(?:_[a-z].*)?$")


def composed_arm(config: DictConfig) -> str:
    """The arm's name as its settings say it."""
    estimator, parts = config.algorithm.adv_estimator, []
    if estimator == "onerpo":
        parts = [str(config.data.get("extra_sampling_size", 0))]
    elif "window_size" in config.data:
        parts = [str(config.data.window_size)]
    return "_".join([estimator, f"{config.data.train_batch_size:04d}", str(config.actor_rollout_ref.rollout.n), *parts])


def variant(user_overrides: list[str]) -> str:
    """A suffix for what a user changed beyond the script, in the order of the keys: `lr-1e-05_n...`; empty for nothing."""
    parts = []
    for text in sorted(user_overrides):
        key, _, value = text.lstrip("+").partition("=")
        if key in _IN_THE_NAME or key.startswith(_NO_EFFECT):
            continue
        parts.append(f"{key.rsplit('.', 1)[-1]}-{re.sub(r'[^A-Za-z0-9.+-]+', '-', value).strip('-')}")
    return "_".join(parts)


def name_run(config: DictConfig, user_overrides: list[str]) -> tuple[str, str]:
    """(arm, run name).

    Raises:
        UserError: if `run.arm` was given and says something else than the settings do.
    """
    arm = composed_arm(config)
    asked = config.run.arm
    if asked and _ARM.match(asked) and not (asked == arm or asked.startswith(f"{arm}_")):
        raise UserError(
            f"run.arm={asked} contradicts the settings, which are those of {arm}: correct the name or the settings, or "
            "leave run.arm out and the run is named by what it does"
        )
    arm = asked or arm
    for suffix in (config.run.variant, variant(user_overrides)):
        arm = f"{arm}_{suffix}" if suffix else arm
    where = [part for part in (config.run.model, config.run.data) if part]
    return arm, "_".join([arm, *where, f"seed{config.seed}"])


def comparable(config: DictConfig, with_seed: bool) -> dict[str, object]:
    """The resolved config as flat keys, without what does not change a run's numbers."""
    flat: dict[str, object] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        elif not prefix.startswith(_NO_EFFECT) and (with_seed or prefix not in _SEEDS):
            flat[prefix] = value

    walk("", OmegaConf.to_container(config, resolve=True))
    return flat


def config_hash(config: DictConfig) -> str:
    """Equal for two runs of one arm on different seeds, different as soon as anything else differs."""
    text = json.dumps(comparable(config, with_seed=False), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
