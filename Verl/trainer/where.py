"""Where the value of a key comes from: every layer that sets it, the highest last (docs/settings.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl.trainer import overrides, settings, typed_paths
from Verl.trainer.run_config import composed
from Verl.trainer.settings import CONFIG_DIR


def where(algorithm: str, scripted: Sequence[str], user: Sequence[str], key: str) -> list[str]:
    """Lines for the terminal: the value, then the layers that set it.

    Raises:
        UserError: for a key that there is not, and for whatever is wrong with the settings.
    """
    config = composed(algorithm, scripted, user)
    if overrides.find(key, config) is None:
        raise overrides.unknown(key, config)
    found = list(_setters(algorithm, scripted, user, key))
    width = max((len(origin) for origin, _ in found), default=0)
    lines = [f"  {origin.ljust(width)}  {_shown(value)}" for origin, value in found]
    return [f"{key} = {_shown(OmegaConf.select(config, key))}", *lines]


def _setters(algorithm: str, scripted: Sequence[str], user: Sequence[str], key: str) -> Iterator[tuple[str, Any]]:
    """(who, value) of each layer that sets the key, or keys below it, lowest first."""
    upper = settings.layers(scripted, typed_paths.resolved(list(user)))
    yield from _found("verl's defaults", settings.verls_defaults(), key)
    for name in ("base", algorithm, f"device/{settings.device_of(upper)}"):
        path = CONFIG_DIR / f"{name}.yaml"
        yield from _found(f"Verl/trainer/config/{name}.yaml", OmegaConf.load(path), key)
    for layer in upper:
        for name, value in layer.settings:
            if name == key:
                yield layer.where, value
            elif name.startswith(f"{key}.") or key.startswith(f"{name}."):
                yield layer.where, f"{name}={value}"


def _found(origin: str, config: DictConfig, key: str) -> Iterator[tuple[str, Any]]:
    node = overrides.find(key, config)
    if node is not None:
        yield origin, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()


def _shown(value: Any) -> str:
    return str(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
