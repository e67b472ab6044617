"""A run's files in the result folder: its lock, whether it is finished, and how a fresh start sets aside what was there.

`run.overwrite=true` and `trainer.resume_mode=disable` both ask for a fresh start. What the run had written is moved, whole,
to `<result_dir>/before/<run>.<number>/`, which is a result folder of its own (`--result` reads it) and which nothing that
reads the result folder looks into. Nothing is deleted. A run
that is to start from a checkpoint (`trainer.resume_from_path`) beside files of its own sets those aside too, except that
the same command, given again, goes on from where it was.
"""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from Verl.errors import UserError
from Verl.files import is_locked, locked
from Verl.trainer.ppo.checkpoint_files import checkpoint_steps

ASIDE = "before"
TOTAL_STEPS = "trainer.total_training_steps"
_ENDS = (TOTAL_STEPS, "trainer.total_epochs", "budget.generated_tokens", "budget.gradient_samples", "budget.hours",
         "budget.patience")  # fmt: skip


def only_one(result_dir: Path, run: str) -> contextlib.AbstractContextManager[None]:
    """One process per run: a second one would interleave its lines with the first one's."""
    busy = f"the run {run} is going on in another process: wait for it, or stop it"
    return locked(result_dir / f".{run}.lock", busy, remove=True)


def going_on(result_dir: Path, run: str) -> bool:
    """Whether another process holds the run's lock."""
    return is_locked(result_dir / f".{run}.lock")


def ends_of(config: Any) -> dict[str, Any]:
    """What ends a run: its steps, epochs and budgets."""
    return {key: OmegaConf.select(config, key, default=None) for key in _ENDS}


def last_step(jsonl: Path) -> int:
    """The step of the last whole line of a run's jsonl; -1 if it has none."""
    try:
        lines = jsonl.read_bytes().splitlines()
    except OSError:
        return -1
    for line in reversed(lines):  # a kill can cut the last line short
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["step"])
    return -1


def recorded(folder: Path) -> dict[str, Any]:
    """run.json; empty if there is none."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def finished(folder: Path, steps: int | None, ends: dict[str, Any]) -> bool:
    """Whether a run is finished and as long as asked: it took `steps`, or it ended by the very limits asked for now."""
    if recorded(folder).get("status") != "finished":
        return False
    if steps is not None and last_step(Path(f"{folder}.jsonl")) >= steps:
        return True
    with contextlib.suppress(Exception):  # no config.yaml, or one that is not ours: then the steps decide
        return ends_of(OmegaConf.load(folder / "config.yaml")) == ends
    return False


def fresh_start(config: DictConfig) -> bool:
    """Whether the run is to begin anew whatever is there."""
    return bool(config.run.overwrite) or config.trainer.resume_mode == "disable"


def set_aside(config: DictConfig) -> dict[Path, Path]:
    """Move what a run has written out of the way.

    Returns:
        where each of its files and folders was, and where it is now; empty if there was nothing.
    """
    result_dir, run = Path(config.run.result_dir), config.run.name
    there = [path for path in _parts(config) if path.exists()]
    if not there:
        return {}
    numbers = [path.name.removeprefix(f"{run}.") for path in (result_dir / ASIDE).glob(f"{run}.*")]
    number = 1 + max((int(text) for text in numbers if text.isdigit()), default=0)
    aside = result_dir / ASIDE / f"{run}.{number}"
    aside.mkdir(parents=True)
    moved = {}
    for path in there:
        # Checkpoints on a disk of their own stay on it.
        moved[path] = aside / path.name if path.parent == result_dir else path.with_name(f"{path.name}.{ASIDE}.{number}")
        path.rename(moved[path])
    return moved


def begin_from_checkpoint(config: DictConfig) -> dict[Path, Path]:
    """Make room for a run that is to start from `trainer.resume_from_path` beside files of its own.

    They are set aside. If the checkpoint is one of the run's own, what led to it is copied back, and the run goes on from
    there; a run that has done so before, or has newer checkpoints than the one it started from, goes on as any other.

    Returns:
        as `set_aside`.
    """
    settings = config.trainer
    if fresh_start(config) or not same_start(config):
        checkpoint, folder = Path(settings.resume_from_path).absolute(), Path(config.run.dir)
        moved = set_aside(config)
        if any(checkpoint.is_relative_to(old) for old in moved):
            for path in (checkpoint, Path(f"{folder}.jsonl"), folder / "samples", folder / "evaluations"):
                _copy_back(path, moved)
            settings.resume_mode = "auto"
        return moved
    if goes_on(config):
        settings.resume_mode = "auto"
    return {}


def _copy_back(path: Path, moved: dict[Path, Path]) -> None:
    for old, new in moved.items():
        if path.is_relative_to(old) and (now := new / path.relative_to(old)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if now.is_dir() else shutil.copy2)(now, path)


def same_start(config: DictConfig) -> bool:
    """Whether the run in this folder began with the checkpoint that is asked for now, as its config.yaml says."""
    requested = config.trainer.resume_from_path
    try:
        before = OmegaConf.select(OmegaConf.load(Path(config.run.dir) / "config.yaml"), "trainer.resume_from_path")
    except (OSError, ValueError, OmegaConfBaseException, YAMLError):
        return False
    return bool(requested and before) and Path(before).absolute() == Path(requested).absolute()


def goes_on(config: DictConfig) -> bool:
    """Whether a run that starts from a checkpoint did so before, and has checkpoints of its own to go on from."""
    return same_start(config) and bool(checkpoint_steps(Path(config.trainer.default_local_dir)))


def _parts(config: DictConfig) -> list[Path]:
    """All that a run writes: its folder, its jsonl and log, and its checkpoints where they lie elsewhere."""
    folder, checkpoints = Path(config.run.dir), Path(config.trainer.default_local_dir)
    outside = [] if checkpoints.is_relative_to(folder) else [checkpoints]
    return [folder, Path(f"{folder}.jsonl"), Path(f"{folder}.log"), *outside]


def check_steps_left(config: DictConfig) -> None:
    """Refuse a run that is past the steps asked for, or that has no checkpoint to go on from to more of them."""
    folder, total = Path(config.run.dir), config.trainer.total_training_steps
    steps = checkpoint_steps(Path(config.trainer.default_local_dir))
    reached = last_step(Path(f"{folder}.jsonl"))
    if total is not None and steps and steps[-1] > total:
        raise UserError(
            f"{TOTAL_STEPS}={total}, but {config.run.name} is at step {steps[-1]} already: ask for at least {steps[-1]}, "
            "or add run.overwrite=true to start it again"
        )
    if recorded(folder).get("status") == "finished" and not steps:
        raise UserError(
            f"{config.run.name} was finished at step {reached} and has no checkpoint to go on from: add run.overwrite=true "
            "to start it again, or run.variant=<a word> to keep both"
        )
