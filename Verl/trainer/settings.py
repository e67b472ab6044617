"""From command-line overrides to one config, without importing torch or verl (so that a typo costs a second).

Five layers, each over the one before; docs/settings.md says which is for what:

    1. verl's defaults
    2. ours: config/base.yaml, config/<algorithm>.yaml, config/device/<device>.yaml
    3. the groups: config/model/<model>.yaml, config/data/<data>.yaml
    4. what a script sets
    5. what a user types; `published=true` among it stands for the settings in published.py

Hydra composes the first two, once per process and device: reading verl's forty files takes it a second. What is above them
is a list of settings each, put on top in order.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from Verl.errors import UserError
from Verl.trainer import overrides, published
from Verl.trainer.ppo.estimators import TRAINERS

CONFIG_DIR = Path(__file__).parent / "config"
ALGORITHMS = tuple(TRAINERS)
GROUPS = ("model", "data")
DEVICES = ("cpu", "cuda")

OmegaConf.register_new_resolver(
    "if_at_least", lambda number, bound, then, otherwise: then if number >= bound else otherwise, replace=True
)
# ${share:0.2,data.max_response_length}: a share of another key's number, as a whole number. (Hydra reads no ${} within ${}.)
OmegaConf.register_new_resolver(
    "share", lambda part, key, *, _root_: round(part * OmegaConf.select(_root_, key)), replace=True
)
OmegaConf.register_new_resolver("equal", lambda one, other: one == other, replace=True)


@dataclass(frozen=True)
class Layer:
    """Settings of one origin, in order; `where` is a file or says whose they are."""

    where: str
    settings: tuple[tuple[str, Any], ...]


def gpus_present() -> int:
    """How many NVIDIA GPUs this process may use, by the driver's device files: importing torch takes seconds.
    `CUDA_VISIBLE_DEVICES=` (or -1) hides all of them."""
    files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not files:
        return files
    named = [one.strip() for one in visible.split(",")]
    return next((place for place, one in enumerate(named) if one in ("", "-1", "NoDevFiles")), len(named))


def gpu_present() -> bool:
    """Whether there is an NVIDIA GPU that this process may use."""
    return gpus_present() > 0


# ---- layers 1 and 2 -----------------------------------------------------------------------------------------------


@cache
def defaults(algorithm: str, device: str) -> DictConfig:
    """verl's defaults and ours. One object for all callers: copy it before changing it."""
    verls = overrides.quoted(f"file://{_verl_config_dir()}")
    return _hydra(CONFIG_DIR, algorithm, [f"hydra.searchpath=[{verls}]", f"device={device}"])


@cache
def _pickled_defaults(algorithm: str, device: str) -> bytes:
    return pickle.dumps(defaults(algorithm, device))


def verls_defaults() -> DictConfig:
    """Layer 1 alone."""
    return _hydra(_verl_config_dir(), "ppo_trainer", [])


def _hydra(folder: Path, name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base=None):
        return hydra_compose(name, overrides)


def _verl_config_dir() -> Path:
    spec = importlib.util.find_spec("verl")  # finds the folder without running verl
    if spec is None or not spec.submodule_search_locations:
        raise UserError("verl is not installed: run `bash Running-Bash/setup.sh` first")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


# ---- layer 3 ------------------------------------------------------------------------------------------------------


def names(kind: str) -> list[str]:
    """The models or data sets that can be chosen: the files of the group."""
    return sorted(path.name.removesuffix(".yaml") for path in (CONFIG_DIR / kind).glob("*.yaml"))


def about(kind: str, name: str) -> dict[str, Any]:
    """What the file of a model or data set says for the plan: title, and sizes or numbers of questions. No setting."""
    return dict(_file(kind, name).get("about") or {})


def group(kind: str, name: str) -> Layer:
    """The settings of a model or a data set.

    Raises:
        UserError: there is none of that name, or its file can't be read.
    """
    settings = {key: value for key, value in _file(kind, name).items() if key != "about"}
    path = CONFIG_DIR / kind / f"{name}.yaml"
    return Layer(str(path.relative_to(CONFIG_DIR.parents[2])), ((f"run.{kind}", name), *_leaves(settings)))


@cache
def _file(kind: str, name: str) -> dict[str, Any]:
    if name not in names(kind):
        own = f"Verl/trainer/config/{kind}/<name>.yaml"
        raise UserError(f"{kind}={name} is unknown: choose {', '.join(names(kind))}, or write {own} for one of your own")
    path = CONFIG_DIR / kind / f"{name}.yaml"
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"Verl/trainer/config/{kind}/{path.name} can't be read: {' '.join(str(error).split())}") from None


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_choice(text: str) -> bool:
    """Whether a `key=value` text chooses a model or a data set."""
    return overrides.key_of(text) in GROUPS


# ---- all of them --------------------------------------------------------------------------------------------------


def compose(algorithm: str, scripted: Sequence[str], user: Sequence[str] = ()) -> DictConfig:
    """The run's config.

    Args:
        algorithm: grpo, bandit or replay: the name of the entry point.
        scripted: key=value texts that a script sets.
        user: those that were typed after it.

    Raises:
        UserError: on an unknown key, model or data set, a wrong type or a text that Hydra can't read.
    """
    if algorithm not in ALGORITHMS:
        raise UserError(f"algorithm={algorithm} is unknown: choose {', '.join(ALGORITHMS)}")
    found = layers(scripted, user)
    device = device_of(found)
    base = defaults(algorithm, device)
    config = pickle.loads(_pickled_defaults(algorithm, device))  # a copy, in a third of the time that copy.deepcopy takes
    for layer in found:
        for key, given in layer.settings:
            value = _checked(layer, key, given, base, config)
            try:
                OmegaConf.update(config, key, overrides.as_text(key, value), merge=True, force_add=True)
            except OmegaConfBaseException as error:
                raise UserError(f"the settings don't compose: {str(error).splitlines()[0]}") from None
    config.trainer.device = device
    _check_references(config, found, base)
    return config


def _check_references(config: DictConfig, found: Sequence[Layer], base: DictConfig) -> None:
    """What a value refers to (`${...}`) must be there, and have the type that the key asks for."""
    for key, value in (setting for layer in found for setting in layer.settings):
        if "${" not in str(value):
            continue
        try:
            node = OmegaConf.select(config, key)
            node = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except (OmegaConfBaseException, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{key}={value} refers to something that is not there ({reason}): give a value") from None
        text = overrides.as_text(key, node)
        overrides.check(key, text, base)
        if text != node:
            OmegaConf.update(config, key, text)


def layers(scripted: Sequence[str], user: Sequence[str]) -> list[Layer]:
    """Layers 3 to 5, in order."""
    chosen = {overrides.key_of(text): overrides.read(text)[1] for text in (*scripted, *user) if is_choice(text)}
    found = [group(kind, str(chosen[kind])) for kind in GROUPS if chosen.get(kind) is not None]
    grouped = dict(setting for layer in found for setting in layer.settings)
    for where, texts in published.expand(scripted, user, grouped):
        found.append(Layer(where, tuple(overrides.read(text) for text in texts if not is_choice(text))))
    return found


def device_of(found: Sequence[Layer]) -> str:
    """Where the run computes: `trainer.device` of the highest layer that has it, else what the machine has."""
    requested = [value for layer in found for key, value in layer.settings if key == "trainer.device"]
    if not requested or requested[-1] == "auto":
        return "cuda" if gpu_present() else "cpu"
    if requested[-1] not in DEVICES:
        raise UserError(f"trainer.device={requested[-1]} is unknown: choose auto, cpu or cuda")
    return requested[-1]


def _checked(layer: Layer, key: str, given: Any, base: DictConfig, below: DictConfig) -> Any:
    """The value, as a number where it is a multiple of what the layers below say."""
    try:
        value = overrides.resolve_multiple(key, given, below)
        overrides.check(key, value, base)
        return value
    except UserError as error:
        raise UserError(f"{layer.where}: {error}" if layer.where.endswith(".yaml") else str(error)) from None
