"""Where a run's model and tokenizer lie on this machine; from the Hugging Face Hub they are fetched, as verl would later."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from Verl.data.hub import go_offline_unless_reachable
from Verl.errors import UserError

_DESCRIBED = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")  # the first that there is, as transformers prefers them


def model_folder(name: str, weights: bool = False) -> Path:
    """The folder of a model: itself, or its newest snapshot from the Hub.

    Args:
        name: a folder, or owner/name on the Hub.
        weights: fetch its weights too, not only what describes it.

    Raises:
        UserError: the Hub does not give it.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    go_offline_unless_reachable(name)
    from huggingface_hub import snapshot_download

    wanted = [*_DESCRIBED, _WEIGHTS[0]] if weights else [*_DESCRIBED]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"]))
        if weights and not weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[_WEIGHTS[1]], ignore_patterns=["*/*"]))
        return folder
    except Exception as error:  # a Hub error, no network, a gated model, a full disk: all end in the same sentence
        raise UserError(
            f"actor_rollout_ref.model.path={name} can't be had from the Hugging Face Hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}): check the name and the network, or give a "
            "local folder"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, by name."""
    return next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])


def tokenizer_name(config: DictConfig) -> str:
    """Where a run's tokenizer comes from: folder or Hub name."""
    return str(config.actor_rollout_ref.model.get("tokenizer_path") or config.actor_rollout_ref.model.path)
