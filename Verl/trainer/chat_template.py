"""`data.chat_template=FILE`: a chat template of the user's, in the place of the tokenizer's own or where it has none.

The file's text becomes verl's `actor_rollout_ref.model.custom_chat_template`: so the text, and not its file, is part of the
run's config and of what the run stands on; checkpoints, and with them evaluation and export, carry it in their tokenizer.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from Verl import REPO_ROOT
from Verl.errors import UserError

KEY = "data.chat_template"
TEXT = "actor_rollout_ref.model.custom_chat_template"


def read_template(file: Path, option: str) -> str:
    """The text of a template's file. Whether it is a template, the first prompt will show.

    Args:
        option: what the user wrote, for the error.

    Raises:
        UserError: it is not there, can't be read, or is empty.
    """
    give = "give a file with a Jinja chat template"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{option} does not exist: {give}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"{option} can't be read ({reason}): {give}") from None
    if not text.strip():
        raise UserError(f"{option} is empty: {give}")
    return text


def settle_template(config: DictConfig) -> None:
    """Put the file's text where verl reads it.

    Raises:
        UserError: a file that is none, one that the config can't hold, or two templates.
    """
    path, given = config.data.chat_template, config.actor_rollout_ref.model.custom_chat_template
    if path is None:
        return
    option = f"{KEY}={path}"
    if given is not None:
        raise UserError(f"{option} and {TEXT} both give a template: leave one of them out")
    text = read_template(REPO_ROOT / str(path), option)
    if "${" in text:
        raise UserError(f"{option} holds ${{, which a config reads as a reference to a key: write it otherwise")
    config.actor_rollout_ref.model.custom_chat_template = text
