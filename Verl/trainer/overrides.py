"""One setting, `key=value`: read as Hydra reads it, and checked against the defaults.

A key must exist there and a value must have its type; an error says so in one sentence with the nearest right name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, Node, OmegaConf

from Verl.errors import UserError

# Dictionaries that verl passes on whole (to Hugging Face, vLLM, a chat template): keys below them are the user's own.
OPEN_DICTS = (
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "data.apply_chat_template_kwargs",
    "data.benchmarks",
    "ray_kwargs.ray_init.runtime_env",
    "reward.reward_kwargs",
)

# Numbers in verl's defaults for which verl takes a text too ("0.5_5.0": two bounds); Verl/trainer/loss_checks.py reads it.
TEXT_TOO = ("algorithm.rollout_correction.rollout_is_threshold",)

_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)x")

# Numbers that may also be none: all checkpoints are kept, an epoch or a budget ends the run, another bound is taken.
_MAY_BE_NULL = (
    "trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep", "trainer.total_training_steps",
    "actor_rollout_ref.actor.clip_ratio_low", "actor_rollout_ref.actor.clip_ratio_high",
)  # fmt: skip


def key_of(text: str) -> str:
    """The key of a `key=value` text. Hydra's + (verl's documentation writes some keys so) changes nothing here."""
    return text.lstrip("+").partition("=")[0]


@cache
def read(text: str) -> tuple[str, Any]:
    """(key, value) of a `key=value` text.

    Raises:
        UserError: if Hydra can't read it, or reads more than one value.
    """
    override = _parsed(text)
    if override.is_delete():
        raise UserError(f"{text!r} would delete a setting that the run needs: set a value instead")
    if override.is_sweep_override():
        raise UserError(f"{text!r} names several values: give one, or a list in brackets")
    return override.key_or_group, override.value()


def _parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"can't read the override {text!r}: write key=value ({reason})") from None


def quoted(text: str) -> str:
    """A text as Hydra reads it back whatever it holds: bare where that will do, since a run is named by what was typed."""
    plain = all((letter.isascii() and letter.isalnum()) or letter in "/._-+" for letter in text)
    if plain:
        return text
    # A backslash counts only before a quotation mark: doubled there, and at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), text)
    return f"'{escaped}'"


def keys_of(config: DictConfig, prefix: str = "") -> Iterable[str]:
    """Every dotted key of a config, those of groups of keys too."""
    for key in config:
        name = f"{prefix}{key}"
        yield name
        child = config._get_node(key)
        if has_keys(child):
            yield from keys_of(child, f"{name}.")


def has_keys(node: Any) -> bool:
    """Whether a node of a config is a group of keys."""
    return isinstance(node, DictConfig) and not node._is_none() and not node._is_missing()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted key a mistyped one most likely meant: by its last part first, then as a whole."""
    known = list(known)
    last = name.rsplit(".", 1)[-1]
    by_last: dict[str, list[str]] = {}
    for key in known:
        by_last.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    for word in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75):
        return max(by_last[word], key=lambda key: difflib.SequenceMatcher(None, key, name).ratio())
    whole = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return whole[0] if whole else None


def find(key: str, config: DictConfig) -> Node | None:
    """The node under a dotted key, interpolations left as they are; None if there is none."""
    node: Any = config
    for part in key.split("."):
        node = node._get_node(part, validate_access=False) if has_keys(node) else None
    return node


def unknown(key: str, config: DictConfig) -> UserError:
    """The error for a key that `config` does not have."""
    guess = nearest(key, keys_of(config))
    return UserError(f"there is no setting {key}; " + (f"did you mean {guess}?" if guess else "`--dry-run` prints all keys"))


def resolve_multiple(key: str, value: Any, config: DictConfig) -> Any:
    """`3x` for a number: three times what the layers below say, so that one arm fits models with different defaults.

    Whole numbers have no multiples: a slip such as `8x` for 8 would be one.

    Args:
        value: as it was given; anything but a text such as `0.5x` for a number is returned as it is.
        config: what the layers below have composed.
    """
    match = _MULTIPLE.fullmatch(value) if isinstance(value, str) else None
    node = find(key, config) if match else None
    below = None if node is None or OmegaConf.is_config(node) else OmegaConf.select(config, key)
    # 3 x 1e-4 is 3e-4, not 0.00030000000000000003
    return float(f"{float(match[1]) * below:.12g}") if isinstance(below, float) else value


# Names of files and folders, which have no default whose type could be asked for.
PATHS = (
    "data.train_files", "data.val_files", "data.test_files", "data.chat_template", "data.custom_cls.path",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.tokenizer_path", "actor_rollout_ref.model.hf_config_path",
    "actor_rollout_ref.model.lora_adapter_path", "actor_rollout_ref.rollout.agent.agent_loop_config_path",
    "reward.custom_reward_function.path", "trainer.resume_from_path", "run.result_dir", "run.figure_dir",
    "trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir",
)  # fmt: skip
_SEVERAL = ("data.train_files", "data.val_files", "data.test_files")
_WORDS = ("run.model", "run.data", "run.arm", "run.variant")


def as_text(key: str, value: Any) -> Any:
    """A value that names something, as the text that it is: `run.data=32` and `data.val_files=[1.parquet,2]` are names.

    Raises:
        UserError: it can't be one.
    """
    if value is None or key not in (*PATHS, *_WORDS):
        return value
    if isinstance(value, list) and key in _SEVERAL and value:
        return [as_text("run.data", one) for one in value if one is not None] or _no_name(key, value)
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if plain and "\n" not in str(value) and "\0" not in str(value) else _no_name(key, value)


def _no_name(key: str, value: Any) -> None:
    several = ", or a list of some" if key in _SEVERAL else ""
    raise UserError(f"{key}={value!r} has the wrong type: it must be a {'word' if key in _WORDS else 'path'}{several}")


def check(key: str, value: Any, defaults: DictConfig) -> None:
    """The key is one of `defaults`, and the value has its type.

    Raises:
        UserError: naming the key, the value and the nearest right key.
    """
    if "???" in str(value):
        raise UserError(f"{key}={value}: ??? stands for a value that is missing: give one, or leave it out")
    if any(key == root or key.startswith(f"{root}.") for root in OPEN_DICTS):
        return
    node = find(key, defaults)
    if node is None:
        raise unknown(key, defaults)
    default = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()
    if isinstance(default, str) and (default == "???" or "${" in default):
        default = None if default == "???" else OmegaConf.select(defaults, key, default=None, throw_on_missing=False)
    _check_type(key, value, default)


def _check_type(key: str, given: Any, default: Any) -> None:
    if given is None and isinstance(default, int | float) and key not in _MAY_BE_NULL:
        kind = _kind(default)
        raise UserError(f"{key}=null has the wrong type: it must be {kind} (default: {str(default).lower()}), or be left out")
    if default is None or given is None or (isinstance(given, str) and ("${" in given or key in TEXT_TOO)):
        return
    wanted, got = _kind(default), _kind(given)
    fits = (
        wanted == got
        # verl writes numbers such as a temperature as 0 or 1: config_checks.BOUNDS says where only a whole number will do.
        or {wanted, got} == {"a number", "a whole number"}
        # A list may be given where verl takes one file or several, and the other way round.
        or {wanted, got} == {"a text", "a list"}
        # Bare words such as 32 are legal texts.
        or (wanted == "a text" and got in ("a whole number", "a number"))
    )
    if not fits:
        example = f" (default: {default})" if wanted != "a group of keys" else ""
        raise UserError(f"{key}={given} has the wrong type: it must be {wanted}{example}, not {got}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "a whole number"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) or OmegaConf.is_list(value) else "a group of keys"
