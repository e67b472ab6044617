"""Checks of LoRA (`actor_rollout_ref.model.lora_rank`), before Ray starts and without torch: each failure is one sentence.

Adapters are merged into the weights that the rollout, an evaluation and an export get (Verl/adapter/lora.py), which is
defined for the linear layers of a decoder's blocks.
"""

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
    if model.exclude_modules is not None:
        raise UserError(
            f"{_MODEL}.exclude_modules={model.exclude_modules} can't be given: verl 0.9.1 takes no list there; name the layers "
            f"to adapt in {_MODEL}.target_modules"
        )
    adapted_layers(config)


def adapted_layers(config: DictConfig) -> list[str]:
    """The kinds of linear layers that have adapters, where `lora_rank` is above 0.

    Raises:
        UserError: a name that is none of LAYERS.
    """
    value = config.actor_rollout_ref.model.target_modules
    if value == "all-linear":
        return list(LAYERS)
    names = list(value) if OmegaConf.is_list(value) else []
    if not names or not set(names) <= set(LAYERS):
        raise UserError(f"{_MODEL}.target_modules={value} is not known here: give all-linear, or a list of {', '.join(LAYERS)}")
    return names
