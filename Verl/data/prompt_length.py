"""How long the prompts are: the tokens of the chat template around the messages, generation prompt included, as in verl.

The trainer leaves out what is longer than a run allows (verl's `data.filter_overlong_prompts`); this says beforehand how
many that will be. Where the tokenizer is a tokenizer.json, template and tokens come from jinja and the tokenizers library
alone: transformers' own AutoTokenizer imports torch, which takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Verl.data.hub import go_offline_unless_reachable
from Verl.data.row_checks import DataError

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class NoChatTemplate(ValueError):
    """The tokenizer has no chat template, so that no prompt can be built with it."""


class PromptEncoder:
    """The prompts of one tokenizer.

    Args:
        folder: a model's or tokenizer's folder.
        template: a chat template in place of the tokenizer's own.

    Raises:
        NoChatTemplate: there is neither.
        OSError, ValueError: the folder holds no tokenizer that can be loaded.
    """

    def __init__(self, folder: str | Path, template: str | None = None):
        self.folder = Path(folder)
        self._settings = _settings(self.folder)
        self.template = template or chat_template(self.folder)
        self._fast: Any = None
        self._slow: Any = None
        if not self._has_json():
            self._slow = _auto_tokenizer(str(self.folder), local=True)
            self.template = self.template or getattr(self._slow, "chat_template", None)
        if not self.template:
            raise NoChatTemplate(f"{folder} has no chat template")

    def lengths(self, prompts: Sequence[Sequence[Mapping[str, str]]], values: Mapping[str, Any] | None = None) -> list[int]:
        """Tokens of each prompt; `values`: what else the template asks for (`data.apply_chat_template_kwargs`).

        Raises:
            ValueError: the template can't write a prompt; the message says which, counted from 1.
        """
        # The call sets these itself; verl drops them too.
        values = {key: value for key, value in (values or {}).items() if key not in _OF_THE_CALL}
        named = {**self._settings, **values}
        texts = []
        for place, prompt in enumerate(prompts, start=1):
            try:
                texts.append(self._render(prompt, named))
            except ValueError as error:
                raise ValueError(f"prompt {place}: {error}") from error
        if len(set(texts)) == 1 and any(prompt != prompts[0] for prompt in prompts):
            raise ValueError("prompt 1 otherwise than all the others: it leaves the messages out")
        return self._count(texts)

    def special_tokens(self) -> dict[str, str]:
        """The named ones (eos_token, pad_token, ...) by their names."""
        if "eos_token" in self._settings or (self._has_json() and self._plain()):
            return self._settings
        # A tokenizer's class may name tokens that its files do not.
        if self._slow is None:
            self._slow = _auto_tokenizer(str(self.folder), local=True)
        return {name: str(one) for name in _SPECIAL if (one := getattr(self._slow, name, None)) is not None}

    def _plain(self) -> bool:
        """Whether the tokenizer's class names no tokens by itself."""
        path = self.folder / "tokenizer_config.json"
        kind = json.loads(path.read_text()).get("tokenizer_class") if path.is_file() else None
        return kind in (None, "PreTrainedTokenizerFast", "TokenizersBackend")

    def largest_id(self) -> int:
        """The largest id that the tokenizer gives a token."""
        vocabulary = self._library().get_vocab() if self._has_json() else self._slow.get_vocab()
        return max(vocabulary.values(), default=-1)

    def id_of(self, token: str) -> int | None:
        """The id of a token; None where there is no such token."""
        if self._has_json():
            return self._library().token_to_id(token)
        return self._slow.get_vocab().get(token)

    def turn_end(self) -> tuple[str, int] | None:
        """The special token that the template writes behind an assistant's turn, and its id; None without one."""
        if not self._has_json():
            return None
        mark = "MARK"
        try:
            text = self._render([{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}],
                                self._settings, prompt_end=False)  # fmt: skip
        except ValueError:  # a template for one turn
            return None
        behind = text.rpartition(mark)[2].lstrip()
        special = [token for token in self._library().get_added_tokens_decoder().values() if token.special]
        found = next((token.content for token in special if behind.startswith(token.content)), None)
        return None if found is None else (found, self._library().token_to_id(found))

    def _render(self, prompt: Sequence[Mapping[str, str]], values: Mapping[str, Any], prompt_end: bool = True) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template  # late: half a second, no torch

        try:
            [rendered], _ = render_jinja_template(
                [list(prompt)], chat_template=self.template, add_generation_prompt=prompt_end, **values
            )
        except Exception as error:  # jinja's own errors, and whatever a template raises
            raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        return rendered

    def _has_json(self) -> bool:
        return (self.folder / "tokenizer.json").is_file()

    def _count(self, texts: list[str]) -> list[int]:
        if not self._has_json():
            return [len(ids) for ids in self._slow(texts, add_special_tokens=False)["input_ids"]]
        return [len(encoding.ids) for encoding in self._library().encode_batch(texts, add_special_tokens=False)]

    def _library(self) -> Any:
        """The tokenizers library's own object for tokenizer.json."""
        if self._fast is None:
            from tokenizers import Tokenizer

            try:
                self._fast = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            except Exception as error:  # the library raises bare Exceptions
                raise ValueError(f"tokenizer.json can't be read ({error})") from error
            self._fast.no_truncation()
            self._fast.no_padding()
        return self._fast


_OF_THE_CALL = ("tokenize", "return_dict", "return_tensors", "add_generation_prompt", "continue_final_message")


def _settings(folder: Path) -> dict[str, str]:
    """The named special tokens that a template may ask for."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            for key, value in json.loads(path.read_text()).items():
                value = value.get("content") if isinstance(value, dict) else value
                if key in _SPECIAL and isinstance(value, str):
                    found[key] = value
    return found


def chat_template(folder: Path) -> str | None:
    """The chat template of a tokenizer's folder, where transformers looks for it; None if there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text()
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text()).get("chat_template") if path.is_file() else None
    if isinstance(found, list):  # several, by name
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    return found


def _auto_tokenizer(name: str, local: bool) -> Any:
    from transformers import AutoTokenizer  # late: it imports torch

    return AutoTokenizer.from_pretrained(name, local_files_only=local)


def count_overlong(rows: dict[str, list[dict[str, Any]]], tokenizer: str, limit: int) -> dict[str, int]:
    """How many rows of each split have a prompt of more than `limit` tokens. `tokenizer`: a folder or a Hub name."""
    if limit < 1:
        raise DataError(f"--max-prompt-length {limit}: must be at least 1")
    encoder = _load(tokenizer)
    return {
        split: sum(length > limit for length in encoder.lengths([row["prompt"] for row in split_rows]))
        for split, split_rows in rows.items()
    }


def _load(tokenizer: str) -> PromptEncoder:
    local = Path(tokenizer).is_dir()
    if not local and (Path(tokenizer).exists() or tokenizer.startswith((".", "/", "~"))):
        raise DataError(f"--tokenizer {tokenizer}: no such folder; give a model's folder or its name on the Hub")
    try:
        return PromptEncoder(tokenizer if local else _from_hub(tokenizer))
    except NoChatTemplate as error:
        raise DataError(f"--tokenizer {tokenizer}: has no chat template, so verl cannot build a prompt with it") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"--tokenizer {tokenizer}: cannot be loaded ({str(error).splitlines()[0]}); "
            "give a folder that holds a model's tokenizer, or its name on the Hub"
        ) from error


def _from_hub(name: str) -> str:
    """The tokenizer's files of a model on the Hub, in its cache."""
    go_offline_unless_reachable(name)
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.model", "*.txt"], ignore_patterns=["*/*"])
