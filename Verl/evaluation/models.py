"""Which model is meant, checked before it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Verl.data.hub import go_offline_unless_reachable
from Verl.errors import UserError
from Verl.evaluation.queries import fingerprint

_WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded.

    Args:
        name: as the user gave it.
        kind: "folder", "hub" or "checkpoint".
        tokenizer: where tokenizer and config are, a folder or a Hub name.
        fingerprint: of weights and config; the commit of a Hub model.
    """

    name: str
    kind: str
    tokenizer: str
    fingerprint: str


def find_model(name: str) -> ModelSource:
    """What `name` refers to. Raises UserError with what is missing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local(name, folder)
    if folder.exists():
        raise UserError(f"--model {name} is a file: give the model's folder")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"--model {name}: no such folder, and not a Hub name (<owner>/<model>)")
    return _on_hub(name)


def _local(name: str, folder: Path) -> ModelSource:
    steps = sorted(folder.glob("global_step_*")) or sorted(folder.glob("checkpoints/global_step_*"))
    if steps:
        raise UserError(f"--model {name} holds {len(steps)} checkpoints: give one of them, e.g. {steps[-1]}")
    home = next(
        (actor for actor in (folder, folder / "actor") if any(actor.glob("model_world_size_*_rank_*.pt"))), None
    )
    if home is not None:
        weights, tokenizer, kind = sorted(home.glob("model_world_size_*_rank_*.pt")), home / "huggingface", "checkpoint"
    else:
        weights, tokenizer, kind = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS), folder, "folder"
    if not (tokenizer / "config.json").is_file():
        raise UserError(f"--model {name}: no config.json in {tokenizer}, so it is neither a model nor a checkpoint")
    if not weights:
        raise UserError(f"--model {name}: no weights ({', '.join(f'*{ending}' for ending in _WEIGHTS)}) in the folder")
    # All of it: after a few small steps two checkpoints differ in some bytes only, anywhere in the file.
    described = sorted(p for p in tokenizer.iterdir() if p.suffix in (".json", ".jinja", ".model", ".txt"))
    hashes = {path.name: fingerprint(path) for path in (*weights, *described)}
    return ModelSource(name, kind, str(tokenizer), hashlib.sha256(json.dumps(hashes).encode()).hexdigest())


def _on_hub(name: str) -> ModelSource:
    go_offline_unless_reachable(name)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        offline = " (the Hub can't be reached, and it isn't in the cache)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(f"--model {name}: neither a folder here nor a model that the Hub gives{offline}") from error
    return ModelSource(name, "hub", name, str(getattr(config, "_commit_hash", None) or name))


def template_of_run(source: ModelSource) -> dict[str, str]:
    """The values for the chat template that a checkpoint was trained with, from its run's config; else none."""
    if source.kind != "checkpoint":
        return {}
    import yaml

    # <run>/checkpoints/global_step_<k>, or the actor folder in it
    configs = [folder / "config.yaml" for folder in list(Path(source.name).expanduser().absolute().parents)[1:3]]
    for path in configs:
        try:
            return dict(yaml.safe_load(path.read_text())["data"].get("apply_chat_template_kwargs") or {})
        except (OSError, KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError):
            continue  # a checkpoint that was moved away from its run
    return {}


def load_tokenizer(source: ModelSource, template: str | None = None) -> Any:
    """The model's tokenizer, with a chat template of the user's if given.

    Raises:
        UserError: it can't be loaded, or there is no chat template: no prompt can be built then.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, local_files_only=source.kind != "hub")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model {source.name}: its tokenizer can't be loaded ({str(error).splitlines()[0]})"
        ) from error
    if template is not None:
        tokenizer.chat_template = template
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"--model {source.name}: its tokenizer has no chat template, so no prompt can be built: give one as --chat-template"
        )
    return tokenizer
