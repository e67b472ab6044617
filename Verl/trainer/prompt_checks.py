"""Whether a run's prompts can be built, are short enough, and leave room for a response. Before Ray, without torch."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from Verl.data.prompt_length import NoChatTemplate, PromptEncoder
from Verl.errors import UserError
from Verl.trainer.benchmarks import files_of, splits_of
from Verl.trainer.model_checks import check_model, check_tokens, described, open_turn
from Verl.trainer.model_files import model_folder, tokenizer_name

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")


def check_prompts(config: DictConfig) -> None:
    """Every prompt through the chat template and the tokenizer.

    Raises:
        UserError: no chat template, a prompt that it can't write, no question left in a split, fewer than a batch left to
            train on, prompts that are too long and not left out, or more tokens than the model's context.
    """
    check_model(config)
    _check_context(config)
    if _makes_its_prompts(config):
        return
    check_tokens(config, encoder := _encoder(config))
    left = {split: _left(config, split, encoder) for split in splits_of(config)}
    size, most = config.data.train_batch_size, int(config.data.get("train_max_samples", -1) or -1)
    if 0 < most < size:
        raise UserError(f"data.train_max_samples={most} is less than data.train_batch_size={size}: lower the batch")
    if left["train"] < size:
        raise UserError(
            f"data.train_batch_size={size} is larger than the {left['train']} training questions whose prompts have at most "
            f"data.max_prompt_length={config.data.max_prompt_length} tokens: raise the one or lower the other"
        )


def notes(config: DictConfig) -> list[str]:
    """What a user should know of the prompts before the start."""
    note = None if _makes_its_prompts(config) else open_turn(config, _encoder(config))
    return [note] if note else []


def _makes_its_prompts(config: DictConfig) -> bool:
    """Whether a data set of the user's own does."""
    return OmegaConf.select(config, "data.custom_cls.name") != "QuestionDataset"


def _encoder(config: DictConfig) -> PromptEncoder:
    name = tokenizer_name(config)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are started after this
    try:
        folder = model_folder(name)
        files = sorted(path for pattern in ("*.json", "*.jinja") for path in folder.glob(pattern))
        stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        return _opened(folder, config.actor_rollout_ref.model.get("custom_chat_template"), stamps)
    except NoChatTemplate:
        raise UserError(
            f"actor_rollout_ref.model.path={name} has no chat template, so no prompt can be built: give one as "
            "data.chat_template=<file> (or its text as actor_rollout_ref.model.custom_chat_template), or take the model's "
            "instruct version"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"actor_rollout_ref.model.path={name} has no tokenizer that can be loaded ({str(error).splitlines()[0]}): give a "
            "folder with tokenizer.json and tokenizer_config.json"
        ) from None


@lru_cache(maxsize=4)  # a large vocabulary takes a second to read
def _opened(folder: Path, template: str | None, stamps: tuple) -> PromptEncoder:
    encoder = PromptEncoder(folder, template)
    encoder.largest_id()  # reads the tokenizer
    return encoder


def _left(config: DictConfig, split: str, encoder: PromptEncoder) -> int:
    """How many questions of a split verl will keep."""
    key, limit, files = splits_of(config)[split], int(config.data.max_prompt_length), files_of(config, split)
    prompts = [
        prompt for path in files for prompt in pq.ParquetFile(path).read(columns=["prompt"])["prompt"].to_pylist()
    ]
    values = _plain(config.data.get("apply_chat_template_kwargs"))
    try:
        lengths = encoder.lengths(prompts, values)
    except ValueError as error:
        raise UserError(
            f"{key}={', '.join(files)}: the chat template of {tokenizer_name(config)} can't write {error}: give messages that "
            "it knows, or another template as data.chat_template=<file>"
        ) from None
    left = sum(length <= limit for length in lengths)
    if left < len(lengths) and not config.data.filter_overlong_prompts:
        raise UserError(
            f"data.filter_overlong_prompts=False, but {len(lengths) - left} of {len(lengths)} prompts of {key} are longer than "
            f"data.max_prompt_length={limit} (the longest: {max(lengths)} tokens): raise the limit, or leave them out"
        )
    if not left:
        raise UserError(
            f"data.max_prompt_length={limit} leaves out all {len(lengths)} prompts of {key} (the shortest has {min(lengths)} "
            "tokens): raise it"
        )
    return left


def _check_context(config: DictConfig) -> None:
    """A prompt and a response at their longest fit into the model's context: beyond it a model says nothing of use."""
    model = config.actor_rollout_ref.model
    overrides = _plain(model.get("override_config"))
    found = described(config)
    found = {**found, **(found.get("text_config") or {}), **overrides, **overrides.get("model_config", {})}
    context = next((found[name] for name in _POSITIONS if isinstance(found.get(name), int)), None)
    requested = config.data.max_prompt_length + config.data.max_response_length
    if context is not None and requested > context:
        raise UserError(
            f"data.max_prompt_length={config.data.max_prompt_length} and data.max_response_length="
            f"{config.data.max_response_length} make {requested} tokens, and the context of {model.path} holds {context}: "
            "lower them"
        )


def _plain(node: DictConfig | None) -> dict:
    return dict(OmegaConf.to_container(node, resolve=True)) if node else {}
