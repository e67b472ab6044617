"""Count the prompts that are longer than a run allows.

The trainer filters them (verl's `data.filter_overlong_prompts`); this says beforehand how many it will be. The
length is verl's: the tokens of the chat template around the prompt, generation prompt included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from Verl.data.checks import DataError
from Verl.data.hub import go_offline_unless_reachable


def count_overlong(rows: dict[str, list[dict[str, Any]]], tokenizer: str, limit: int) -> dict[str, int]:
    """How many rows of each split have a prompt of more than `limit` tokens. `tokenizer`: a folder or a Hub name."""
    if limit < 1:
        raise DataError(f"--max-prompt-length {limit}: must be at least 1")
    encoder = _load(tokenizer)
    return {
        split: sum(
            len(encoder.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)) > limit
            for row in split_rows
        )
        for split, split_rows in rows.items()
    }


def _load(tokenizer: str) -> Any:
    local = Path(tokenizer).is_dir()
    if not local and (Path(tokenizer).exists() or tokenizer.startswith((".", "/", "~"))):
        raise DataError(f"--tokenizer {tokenizer}: no such folder; give a model's folder or its name on the Hub")
    if not local:
        go_offline_unless_reachable(tokenizer)
    from transformers import AutoTokenizer  # late: seconds, and only where it is asked for

    try:
        encoder = AutoTokenizer.from_pretrained(tokenizer, local_files_only=local)
    except (OSError, ValueError) as error:
        raise DataError(
            f"--tokenizer {tokenizer}: cannot be loaded ({str(error).splitlines()[0]}); "
            "give a folder that holds a model's tokenizer, or its name on the Hub"
        ) from error
    if not getattr(encoder, "chat_template", None):
        raise DataError(f"--tokenizer {tokenizer}: has no chat template, so verl cannot build a prompt with it")
    return encoder
