"""A training checkpoint of verl 0.9.1 (FSDP) as a Hugging Face model, in one process and without a GPU.

verl's `FSDPCheckpointManager` writes `<checkpoint>/actor/` with one `model_world_size_<n>_rank_<r>.pt` per process (a
state dict of DTensors, each process its own rows) and `huggingface/` with config and tokenizer.

Why not verl's own `verl.model_merger`: it rounds every weight to bf16 on the way. One step of the study's learning rate
(1e-6) is far below what bf16 resolves, so it would evaluate another model than the one that was trained. Here the
weights keep the type they were saved in.

The file is read with `weights_only=True`: a checkpoint from somebody else can't run code. Relies on a private name of
torch, `DTensor._local_tensor` (verl's merger does too): `to_local()` needs a process group.
"""

import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel

from Verl.adapter import lora
from Verl.errors import UserError

_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


def find_actor(folder: Path) -> Path | None:
    """The folder with the policy's weights if `folder` is a checkpoint (`global_step_<k>`, or its `actor`), else None."""
    for candidate in (Path(folder), Path(folder) / "actor"):
        if candidate.is_dir() and any(_SHARD.fullmatch(path.name) for path in candidate.iterdir()):
            return candidate
    return None


def shard_files(actor: Path) -> list[Path]:
    """The weight files in the order of their ranks. Raises UserError if one is missing or they are of two runs."""
    found: dict[int, dict[int, Path]] = {}
    for path in actor.iterdir():
        if match := _SHARD.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if len(found) != 1:
        raise UserError(f"{actor} holds the weights of {len(found)} runs (by number of processes): it must hold one")
    world, ranks = next(iter(found.items()))
    missing = sorted(set(range(world)) - set(ranks))
    if missing:
        raise UserError(
            f"{actor}: the weights of rank {missing[0]} of {world} are missing, so the checkpoint isn't whole"
        )
    return [ranks[rank] for rank in range(world)]


def load_state_dict(actor: Path) -> dict[str, torch.Tensor]:
    """The whole weights by name, in the type they were saved in. Raises UserError for what can't be put together."""
    # Without a process group a DeviceMesh warns that its group can't be looked up; nobody looks it up here.
    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
    shards = []
    for path in shard_files(actor):
        try:
            shards.append(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} can't be read as weights ({_first_line(error)})") from error
    return {name: _join(name, [shard[name] for shard in shards], actor) for name in shards[0]}


def _join(name: str, parts: list[torch.Tensor], actor: Path) -> torch.Tensor:
    """One weight from what each process held of it: rows one after the other, or the same everywhere."""
    if not isinstance(parts[0], DTensor):
        return parts[0]
    placements = parts[0].placements
    if len(placements) != 1 or not isinstance(placements[0], Shard | Replicate):
        raise UserError(
            f"{actor}: the weight {name} is spread as {placements}, which is read for plain FSDP only; "
            "make a model folder with: python -m verl.model_merger merge --backend fsdp"
        )
    if isinstance(placements[0], Replicate):
        return parts[0]._local_tensor
    whole = torch.cat([part._local_tensor for part in parts], dim=placements[0].dim)
    if whole.shape != parts[0].shape:
        raise UserError(
            f"{actor}: the parts of the weight {name} give {tuple(whole.shape)}, not {tuple(parts[0].shape)}"
        )
    return whole


def load_checkpoint(folder: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The policy of a checkpoint, ready to generate.

    Args:
        folder: `<run>/checkpoints/global_step_<k>` or the `actor` folder in it.
        dtype: type to compute in; None keeps the type of the saved weights.

    Raises:
        UserError: not a checkpoint, not whole, or weights that don't fit its config.
    """
    actor = find_actor(folder)
    if actor is None:
        raise UserError(
            f"{folder} is not a checkpoint: no model_world_size_<n>_rank_<r>.pt in it or in its actor folder"
        )
    home = actor / "huggingface"
    if not (home / "config.json").is_file():
        raise UserError(f"{home / 'config.json'} is missing, so the checkpoint isn't whole")
    state = _without_adapters(load_state_dict(actor), actor)
    config = AutoConfig.from_pretrained(home, local_files_only=True)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=dtype or _type_of(state),
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    _refuse_gaps(actor, report)
    if (home / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(home)
    return model.eval()


def _without_adapters(state: dict[str, torch.Tensor], actor: Path) -> dict[str, torch.Tensor]:
    """LoRA adapters merged, if there are any: verl writes rank and alpha beside the weights."""
    if not lora.has_adapters(state):
        return state
    try:
        settings = json.loads((actor / "lora_train_meta.json").read_text())
        return lora.merged(state, settings["lora_alpha"] / settings["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{actor}: the LoRA adapters can't be merged ({_first_line(error)})") from error


def _refuse_gaps(actor: Path, report: dict[str, Any]) -> None:
    """transformers fills what is missing with random numbers and goes on; an evaluation must not."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(problem):
            names = sorted(str(name) for name in report[problem])
            raise UserError(f"{actor}: the weights don't fit the config ({problem}: {', '.join(names[:3])})")


def _type_of(state: dict[str, torch.Tensor]) -> torch.dtype:
    return next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())


def export_checkpoint(folder: Path, out: Path) -> None:
    """Writes the policy of a checkpoint as a model folder (config, tokenizer, safetensors), for engines that want one."""
    model = load_checkpoint(folder)
    home = find_actor(folder) / "huggingface"
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(home, local_files_only=True).save_pretrained(out)
    (Path(out) / "exported_from.json").write_text(json.dumps({"checkpoint": Path(folder).name}) + "\n")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
