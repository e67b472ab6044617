"""Whether a model can be trained here, said by its files in one sentence: before Ray, without its weights and without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from Verl.data.prompt_length import PromptEncoder
from Verl.errors import UserError
from Verl.trainer.model_files import model_folder, tokenizer_name, weight_files

_PATH, _CODE = "actor_rollout_ref.model.path", "actor_rollout_ref.model.trust_remote_code"
_GENERATES = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$")  # what verl's actor can be


def described(config: DictConfig) -> dict[str, Any]:
    """config.json of a run's model.

    Raises:
        UserError: it is not there or can't be read.
    """
    model = config.actor_rollout_ref.model
    path = model_folder(str(model.get("hf_config_path") or model.path)) / "config.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{_PATH}={model.path}: {path} can't be read ({why}): repair the folder") from None
    if not isinstance(found, dict):
        raise UserError(f"{_PATH}={model.path}: {path} holds no settings of a model: repair the folder")
    return found


def check_model(config: DictConfig) -> None:
    """Refuse what can't be trained: an encoder-decoder, an encoder, code of its own, quantised weights, none at all.

    Raises:
        UserError: one sentence with what it is and what to do.
    """
    model, found = config.actor_rollout_ref.model, described(config)
    which, take = f"{_PATH}={model.path}", "take a decoder-only language model (...ForCausalLM)"
    kind, made = found.get("model_type"), found.get("architectures") or []
    if found.get("is_encoder_decoder"):
        raise UserError(f"{which} is an encoder-decoder ({kind}), and prompt and response are one text here: {take}")
    if len(made) != 1:
        raise UserError(f"{which}: config.json names {len(made)} architectures, and verl asks for one: repair it, or {take}")
    if not _GENERATES.search(str(made[0])):
        raise UserError(f"{which} is a {made[0]}, which writes no text: {take}")
    if found.get("auto_map") and not model.trust_remote_code and not _known(kind):
        raise UserError(
            f"{which} brings code of its own (auto_map in config.json), which runs with your rights: read it, and set "
            f"{_CODE}=true, or take another model"
        )
    if not found.get("auto_map") and not _known(kind):
        raise UserError(f"{which}: model_type={kind} is unknown to the installed transformers: {take} that it knows")
    if quantised := found.get("quantization_config"):
        how = quantised.get("quant_method", "an unknown way") if isinstance(quantised, dict) else "an unknown way"
        raise UserError(f"{which} has quantised weights ({how}), which take no gradient: take the model that it was made from")
    folder = model_folder(str(model.path))
    if Path(str(model.path)).expanduser().is_dir() and not weight_files(folder):
        raise UserError(f"{which} has no weights (*.safetensors or *.bin): the folder is not whole")


@lru_cache(maxsize=64)
def _known(kind: str | None) -> bool:
    """Whether transformers has an architecture of its own for it."""
    # Not configuration_auto, which has the same table and imports torch.
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

    return kind in CONFIG_MAPPING_NAMES


def check_tokens(config: DictConfig, encoder: PromptEncoder) -> None:
    """A response can end, rows can be padded, and every token has an embedding.

    Raises:
        UserError: one sentence with what is missing and where to add it.
    """
    model, found = config.actor_rollout_ref.model, described(config)
    named = encoder.special_tokens()
    which = f"{_PATH}={model.path}"
    if "eos_token" not in named:
        ends = [found.get("eos_token_id"), _generation(config).get("eos_token_id")]
        if not any(one is not None and one != [] for one in ends):
            raise UserError(
                f"{which} has no end token, so that no response could end: name one as eos_token in tokenizer_config.json "
                "(of a copy, as actor_rollout_ref.model.tokenizer_path) or as eos_token_id in generation_config.json"
            )
        if "pad_token" not in named:
            raise UserError(
                f"{which}: its tokenizer names neither pad_token nor eos_token, and rows of one batch are padded: name one "
                "in tokenizer_config.json (of a copy, as actor_rollout_ref.model.tokenizer_path)"
            )
    rows = found.get("vocab_size") or (found.get("text_config") or {}).get("vocab_size")
    largest = encoder.largest_id()
    if rows is not None and largest >= rows:
        raise UserError(
            f"{which} has embeddings for {rows} tokens, and the tokenizer of {tokenizer_name(config)} has ids up to {largest}: "
            "take the model's own tokenizer, or enlarge the embeddings (model.resize_token_embeddings) and save the model"
        )


def open_turn(config: DictConfig, encoder: PromptEncoder) -> str | None:
    """A note where the chat template ends a turn with a token that ends no response: a model that has learnt the template
    then goes on after it. None where they agree, or where that is unknown."""
    token = encoder.turn_end()
    if token is None:
        return None
    text, number = token
    ends = {encoder.id_of(encoder.special_tokens().get("eos_token", "")), *_ids(_generation(config).get("eos_token_id"))}
    if not _generation(config):
        ends |= set(_ids(described(config).get("eos_token_id")))
    if number in ends:
        return None
    return (
        f"note: the chat template ends a turn with {text}, which is no end token of this model: responses go on after it; "
        f"add its id {number} to eos_token_id in generation_config.json if they should not"
    )


def _generation(config: DictConfig) -> Mapping[str, Any]:
    path = model_folder(str(config.actor_rollout_ref.model.path)) / "generation_config.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _ids(value: Any) -> list[int]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
