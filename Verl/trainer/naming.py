"""A run is named by what it does: <arm>_<model>_<data>_seed<k>, arm = <estimator>_<batch>_<rollouts>[_<extra|window>].

What a user typed beyond the script is added to the arm, `<key>-<value>` each (docs/names.md). Different settings give
different names: a key is written by its shortest suffix that no other key has, and a value that can't be written in full
adds a short hash of everything typed.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.overrides import keys_of
from Verl.trainer.ppo.estimators import EXTRA, WINDOW, size_of

MAX_NAME = 119  # characters: a folder, a lock and a figure are named after it, and 255 is the file system's limit

# What the arm's own name says already.
_IN_THE_ARM = (
    "data.train_batch_size", "actor_rollout_ref.rollout.n", "algorithm.adv_estimator", EXTRA.key, WINDOW.key,
)  # fmt: skip
# The number of evaluated questions changes what is measured, not the arm: one name, but another run (`comparable`).
_MEASURE = ("evaluation.train_questions", "evaluation.val_questions", "evaluation.test_questions")
_BENCHMARKS = "data.benchmarks"  # the same
# Keys that say nothing where they are not set, as in a run from before there were any; the text of a chat template stands
# in verl's own key.
_UNSET = (_BENCHMARKS, "data.chat_template")
# How far a run goes; it may go further when it is resumed, unless its learning rate is a function of the length.
_LENGTH = ("trainer.total_training_steps", "trainer.total_epochs")
_NO_EFFECT = (
    "run.", "samples.", "budget.", "ray_kwargs.", "global_profiler.", "trainer.device", "trainer.logger", "trainer.save_freq",
    # Data parallel: the same numbers up to rounding; identity.py keeps a resume to as many GPUs.
    "trainer.n_gpus_per_node", "trainer.nnodes",
    "actor_rollout_ref.rollout.n_gpus_per_node", "actor_rollout_ref.rollout.nnodes",
    "trainer.test_freq", *_LENGTH, "trainer.resume", "trainer.project_name",
    "trainer.experiment_name", "trainer.default_local_dir", "trainer.max_", "trainer.val_before_train", "evaluation.",
    "trainer.keep_best", "trainer.log_val_generations", "trainer.validation_data_dir", "trainer.rollout_data_dir",
    "actor_rollout_ref.rollout.trace.",  # carries the run's name, and so its seed
)  # fmt: skip
# Parts of verl's config that no run here has: their keys do not make a name longer that is clear without them.
_UNUSED = ("critic", "distillation", "reward_model", "custom_reward_function", "sandbox_fusion", "global_profiler", "skip",
           "transfer_queue", "reward.reward_model", "reward.sandbox_fusion")  # fmt: skip
_SEEDS = ("seed", "data.seed", "actor_rollout_ref.rollout.seed", "actor_rollout_ref.actor.data_loader_seed",
          "actor_rollout_ref.actor.fsdp_config.seed")  # fmt: skip
_ARM = re.compile(
    r"(?P<estimator>[a-z][a-z0-9_]*?)_(?P<queries>\d{4,})_(?P<rollouts>\d+)(?:_(?P<size>\d+))?(?:_(?P<rest>[a-z].*))?"
)


@dataclass(frozen=True)
class ArmName:
    """What an arm's name says: `onerpo_0032_1_7` trains on one response to each of 32 queries, beside 7 extra ones."""

    estimator: str
    queries: int
    rollouts: int
    size: int | None  # the extra responses, or the window: Verl/trainer/ppo/estimators.py says which
    rest: str  # a variant, or what a user changed


def parse_arm(name: str) -> ArmName | None:
    """None if the name is not one that `composed_arm` makes."""
    match = _ARM.fullmatch(name)
    if not match:
        return None
    size = int(match["size"]) if match["size"] else None
    return ArmName(match["estimator"], int(match["queries"]), int(match["rollouts"]), size, match["rest"] or "")


def composed_arm(config: DictConfig) -> str:
    """The arm's name as its settings say it."""
    estimator, rollouts = config.algorithm.adv_estimator, config.actor_rollout_ref.rollout.n
    size = size_of(estimator)
    last = None if size is None else OmegaConf.select(config, size.key, default=0)
    return arm_name(estimator, config.data.train_batch_size, rollouts, last)


def arm_name(estimator: str, queries: int, rollouts: int, *rest: object) -> str:
    """`<estimator>_<queries>_<rollouts>`, and what follows, if it is not None."""
    return "_".join([estimator, f"{queries:04d}", str(rollouts), *(str(part) for part in rest if part is not None)])


def variant(
    user_overrides: Sequence[str], known: Iterable[str], in_the_arm: Sequence[str] = _IN_THE_ARM, room: int = 80
) -> str:
    """A suffix for what a user changed beyond the script, in the order of the keys: `lr-1e-5_rollout.temperature-0.7`.

    Args:
        user_overrides: key=value texts; of two for one key the last counts, as in Hydra.
        known: every key of the run's config.
        in_the_arm: keys that the arm's name says already.
        room: characters that the suffix may take; what does not fit stands behind the hash.

    Returns:
        an empty text where nothing was changed. `_h<8 hex digits>` at its end stands for all overrides as typed, where
        the rest can't tell them from others.
    """
    typed = dict(text.lstrip("+").partition("=")[::2] for text in user_overrides)
    typed = {
        key: value
        for key, value in sorted(typed.items())
        if key not in in_the_arm and key != "seed" and not key.startswith((*_NO_EFFECT, _BENCHMARKS))
    }
    known = {*known, *typed}
    words, exact = [], True
    for key, value in typed.items():
        name, word = short_key(key, known), _readable(value)
        words.append(f"{name}-{word}")
        # With no "_" in a value and no "-" in a key the words can be taken apart again, so they stand for one list only.
        exact = exact and word == value and re.fullmatch(r"[A-Za-z0-9.+-]+", value) is not None and "-" not in name
    if exact and len("_".join(words)) <= room:
        return "_".join(words)
    mark = "h" + hashlib.sha256(json.dumps(typed).encode()).hexdigest()[:8]
    while words and len("_".join([*words, mark])) > room:
        words.pop()
    return "_".join([*words, mark])


def short_key(key: str, known: Collection[str]) -> str:
    """The shortest dotted suffix of `key` that no other known key ends in.

    For a key that a run uses, keys of parts that no run has do not count; for a key of such a part all do, so that no two
    keys are ever shortened to one text.
    """
    parts = key.split(".")
    alike = [other for other in known if other != key and other.endswith(f".{parts[-1]}")]
    others = [other for other in alike if _unused(key) or not _unused(other)]
    for count in range(1, len(parts)):
        suffix = ".".join(parts[-count:])
        if suffix not in known and not any(other.endswith(f".{suffix}") for other in others):
            return suffix
    return key


def _unused(key: str) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in _UNUSED) or "profiler" in key.split(".")


def _readable(value: str) -> str:
    """A value as a word of a file's name: files by their own names, everything else letter by letter, 24 at most."""
    if "/" in value:
        value = "+".join(
            PurePath(one.strip(" \"'")).name.removesuffix(".parquet") for one in value.strip("[] ").split(",")
        )
    word = re.sub(r"[^A-Za-z0-9.+_-]+", "-", value)
    return word if word == value and len(word) <= 24 else word[:24].strip("-")


def name_run(config: DictConfig, user_overrides: list[str]) -> tuple[str, str]:
    """(arm, run name).

    Raises:
        UserError: if `run.arm` was given and says something else than the settings do.
    """
    arm = composed_arm(config)
    requested = config.run.arm
    of_settings = not requested or parse_arm(requested) is not None
    if requested and of_settings and not (requested == arm or requested.startswith(f"{arm}_")):
        raise UserError(
            f"run.arm={requested} contradicts the settings, which are those of {arm}: correct the name or the settings, or "
            "leave run.arm out and the run is named by what it does"
        )
    for key, pattern in (("arm", _WORD), ("variant", _WORD), ("model", _NO_UNDERSCORE), ("data", _NO_UNDERSCORE)):
        _check_word(key, config.run[key], pattern)
    in_the_arm = _IN_THE_ARM if of_settings else ()
    where = "_".join([part for part in (config.run.model, config.run.data) if part] + [f"seed{config.seed}"])
    arm = "_".join(filter(None, (requested or arm, config.run.variant)))
    suffix = variant(user_overrides, keys_of(config), in_the_arm, room=MAX_NAME - len(f"{arm}__{where}"))
    arm = f"{arm}_{suffix}" if suffix else arm
    name = f"{arm}_{where}"
    if len(name) > MAX_NAME:
        raise UserError(
            f"the run's name would have {len(name)} characters ({name[:40]}...), and {MAX_NAME} is the most: shorten run.arm, "
            "run.variant, run.model or run.data"
        )
    return arm, name


_WORD, _NO_UNDERSCORE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*"), re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def _check_word(key: str, value: object, pattern: re.Pattern) -> None:
    """A folder, and files beside it, are named by it; model and data end where an underscore begins."""
    if value and not pattern.fullmatch(str(value)):
        allowed = "letters, digits, points, dashes" + (" and underscores" if pattern is _WORD else "")
        raise UserError(f"run.{key}={value} can't be part of a run's name: use {allowed} only, a letter or digit first")


def comparable(config: DictConfig, with_seed: bool) -> dict[str, object]:
    """The resolved config as flat keys, without what does not change a run's numbers."""
    flat: dict[str, object] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        elif prefix in _UNSET:
            return
        elif counts(prefix) and (with_seed or prefix not in _SEEDS):
            flat[prefix] = value

    measured = (*_MEASURE, *_LENGTH) if _shaped_by_length(config) else _MEASURE

    def counts(key: str) -> bool:
        return key in measured or not key.startswith(_NO_EFFECT)

    walk("", OmegaConf.to_container(config, resolve=True))
    return flat


def _shaped_by_length(config: DictConfig) -> bool:
    """Whether the learning rate depends on how many steps there will be (warm-up by a share of them, or a decay)."""
    optim = OmegaConf.select(config, "actor_rollout_ref.actor.optim") or {}
    warm_up = (optim.get("lr_warmup_steps") or -1) <= 0 and (optim.get("lr_warmup_steps_ratio") or 0) > 0
    return warm_up or optim.get("lr_scheduler_type", "constant") != "constant"


def config_hash(config: DictConfig) -> str:
    """Equal for two runs of one arm on different seeds, different as soon as anything else differs."""
    text = json.dumps(comparable(config, with_seed=False), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
