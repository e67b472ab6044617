"""Checks of LoRA (`actor_rollout_ref.model.lora_rank`), before Ray starts and without torch: each failure is one sentence.

Adapters are merged into the weights that the rollout, an evaluation and an export get (Verl/adapter/lora.py), which is
defined for the linear layers of a decoder's blocks.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError

_MODEL = "actor_rollout_ref.model"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def check_lora(config: DictConfig) -> None:
    """Raises UserError for a setting of LoRA that is wrong, or that verl 0.9.1 can't carry out."""
    model = config.actor_rollout_ref.model
    if model.lora_adapter_path:
        raise UserError(
            f"{_MODEL}.lora_adapter_path={model.lora_adapter_path} can't be begun with: verl 0.9.1's reference would be the "
            f"model without it; merge it into a model folder (peft's merge_and_unload) and set {_MODEL}.path to that"
        )
    if not model.lora_rank:
        return
    if not adapted_layers(config):
        raise UserError(f"{_MODEL}.exclude_modules={model.exclude_modules} leaves no layer to adapt: exclude fewer")


def adapted_layers(config: DictConfig) -> list[str]:
    """The kinds of linear layers that have adapters, where `lora_rank` is above 0.

    Raises:
        UserError: a name that is none of LAYERS.
    """
    model = config.actor_rollout_ref.model
    left_out = _layers("exclude_modules", model.exclude_modules)
    return [layer for layer in _layers("target_modules", model.target_modules) if layer not in left_out]


def _layers(key: str, value: Any) -> tuple[str, ...]:
    """The names of the linear layers that a setting means."""
    if value is None:
        return ()
    if value == "all-linear" and key == "target_modules":
        return LAYERS
    names = list(value) if OmegaConf.is_list(value) or isinstance(value, list | tuple) else None
    if names is None or not names or not set(names) <= set(LAYERS):
        choice = "all-linear, or " if key == "target_modules" else ""
        raise UserError(f"{_MODEL}.{key}={value} is not known here: give {choice}a list of {', '.join(LAYERS)}")
    return tuple(names)
