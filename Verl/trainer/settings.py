"""From command-line overrides to one checked config, without importing torch or verl (so that a typo costs a second).

`compose` is Hydra's own composition over our files and verl's; what is added is that every override must name a key that
exists and carry a value of its type, and that an error says so in one sentence with the nearest right name.
"""

import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from Verl.errors import UserError
from Verl.trainer.ppo.estimators import TRAINERS

CONFIG_DIR = Path(__file__).parent / "config"
ALGORITHMS = tuple(TRAINERS)

# Dictionaries that verl passes on whole (to Hugging Face, vLLM, a chat template): keys below them are the user's own.
OPEN_DICTS = (
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "data.apply_chat_template_kwargs",
    "ray_kwargs.ray_init.runtime_env",
    "reward.reward_kwargs",
)

# Numbers in verl's defaults for which verl takes a text too ("0.5_5.0": two bounds); Verl/trainer/loss_checks.py reads it.
TEXT_TOO = ("algorithm.rollout_correction.rollout_is_threshold",)


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA GPU, asked of the driver's device files: importing torch takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _verl_config_dir() -> Path:
    spec = importlib.util.find_spec("verl")  # finds the folder without running verl
    if spec is None or not spec.submodule_search_locations:
        raise UserError("verl is not installed: run `bash Running-Bash/setup.sh` first")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


def _hydra(algorithm: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    search = f"hydra.searchpath=[file://{_verl_config_dir()}]"
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        return hydra_compose(algorithm, overrides=[search, *overrides])


def _flat_keys(config: Any, prefix: str = "") -> Iterable[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _flat_keys(child, f"{name}.")


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


def _check_type(key: str, given: Any, default: Any) -> None:
    if default is None or given is None or (isinstance(given, str) and ("${" in given or key in TEXT_TOO)):
        return
    wanted, got = _kind(default), _kind(given)
    fits = (
        wanted == got
        # verl writes numbers such as a temperature as 0 or 1: where only a whole number will do, checks.BOUNDS says so.
        or {wanted, got} == {"a number", "a whole number"}
        # A list may be given where verl takes one file or several, and the other way round.
        or {wanted, got} == {"a text", "a list"}
        # Bare words such as 32 are legal texts.
        or (wanted == "a text" and got in ("a whole number", "a number"))
    )
    if not fits:
        raise UserError(f"{key}={given} has the wrong type: it must be {wanted} (default: {default}), not {got}")


def check_overrides(overrides: list[str], base: DictConfig) -> None:
    """Every override names a key of `base` and has its type.

    Raises:
        UserError: naming the key, the value and the nearest right key.
    """
    known = [key for key in _flat_keys(base) if not key.startswith("hydra")]
    names = set(known)
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"can't read the override {text!r}: write key=value ({reason})") from None
        key = override.key_or_group
        if any(key == root or key.startswith(f"{root}.") for root in OPEN_DICTS):
            continue
        if key not in names:
            guess = nearest(key, known)
            hint = f"; did you mean {guess}?" if guess else "; `--dry-run` prints all keys"
            raise UserError(f"there is no setting {key} (in {text!r}){hint}")
        if override.is_delete():
            raise UserError(f"{text!r} would delete a setting that the run needs: set a value instead")
        node = base
        for part in key.split("."):
            node = node._get_node(part)
        default = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()
        if isinstance(default, str) and (default == "???" or "${" in default):
            default = None if default == "???" else OmegaConf.select(base, key, default=None, throw_on_missing=False)
        _check_type(key, override.value(), default)


def compose(algorithm: str, overrides: list[str]) -> DictConfig:
    """The run's config: our defaults for `algorithm`, those of the device, then the overrides.

    Args:
        algorithm: grpo, bandit or replay: the name of the entry point.
        overrides: key=value texts, as typed after a script.

    Raises:
        UserError: on an unknown key, a wrong type or a text Hydra can't read.
    """
    device = "cuda" if gpu_present() else "cpu"
    for text in overrides:
        if text.lstrip("+").startswith("trainer.device="):
            asked = text.split("=", 1)[1]
            device = asked if asked in ("cpu", "cuda") else device
            if asked not in ("cpu", "cuda", "auto"):
                raise UserError(f"trainer.device={asked} is unknown: choose auto, cpu or cuda")
    check_overrides(overrides, _hydra(algorithm, [f"device={device}"]))
    # A known key may carry Hydra's + (verl's documentation writes some so); it changes nothing here.
    plain = [text if text.lstrip("+").split("=")[0].startswith(OPEN_DICTS) else text.lstrip("+") for text in overrides]
    plain = [f"++{text.lstrip('+')}" if text.lstrip("+").startswith(OPEN_DICTS) else text for text in plain]
    try:
        config = _hydra(algorithm, [f"device={device}", *plain, f"trainer.device={device}"])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the settings don't compose: {str(error).splitlines()[0]}") from None
    return config
