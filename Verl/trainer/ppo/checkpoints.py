"""Checkpoints that are whole or not there, and that hold everything a resumed run needs to go on to the bit.

verl writes weights, optimizer, worker random states and the data position; to these come the algorithm's state (reward
histories), the ledger and the trainer's own random states. All go into `.partial/`, which is renamed to
`global_step_<k>` as the last act: a kill before that leaves the checkpoint before it as the newest. A checkpoint is
written after the step's line in the jsonl, so that the log is never behind the weights.
"""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from Verl.adapter import safe_load  # noqa: F401  numpy's names
from Verl.errors import RunStopped, UserError
from Verl.files import write_atomic
from Verl.trainer import full_disk
from Verl.trainer.best import VALIDATION, best_trained
from Verl.trainer.ppo.checkpoint_files import STATE as _STATE
from Verl.trainer.ppo.checkpoint_files import checkpoint_steps
from Verl.trainer.ppo.evaluation import Evaluator
from Verl.trainer.ppo.served_trainer import ServedTrainer

_RANDOM, _RANDOM_BEFORE = "driver_random.json", "driver_random.pt"
_TRACKER = "latest_checkpointed_iteration.txt"  # verl's name for "which one is newest"


class EvaluatedTrainer(ServedTrainer, Protocol):
    """A trainer that evaluates: after a resume its evaluator leaves out what the log has already."""

    evaluator: Evaluator


class Checkpoints:
    """Saves and loads the checkpoints of one trainer under `trainer.default_local_dir`."""

    def __init__(self, trainer: EvaluatedTrainer):
        self.trainer, self.folder = trainer, Path(trainer.config.trainer.default_local_dir)
        self._pending: Callable[[], None] | None = None

    def save(self, verl_save: Callable[[], None]) -> None:
        """Notes that this step is to be saved; `commit` does it once the step's line is written."""
        self._pending = verl_save

    def commit(self) -> None:
        """Writes the checkpoint noted by `save`, if any."""
        if self._pending is None:
            return
        verl_save, self._pending = self._pending, None
        self.trainer.run_log.flush()
        step, settings = self.trainer.global_steps, self.trainer.config.trainer
        partial, final = self.folder / ".partial", self.folder / f"global_step_{step}"
        shutil.rmtree(partial, ignore_errors=True)
        kept, folder = settings.max_actor_ckpt_to_keep, settings.default_local_dir
        settings.default_local_dir, settings.max_actor_ckpt_to_keep = str(partial), None
        try:
            verl_save()
            written = partial / final.name
            self._write_state(written)
            _flush_to_disk(written)
        except Exception as error:
            full = full_disk.is_full(error, self.folder)
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk, the space for saying so
            if full:
                raise RunStopped(f"the checkpoint of step {step} was not written: {full_disk.sentence(self.folder)}") from error
            raise
        finally:
            settings.default_local_dir, settings.max_actor_ckpt_to_keep = folder, kept
        shutil.rmtree(final, ignore_errors=True)
        written.rename(final)
        write_atomic(self.folder / _TRACKER, str(step))
        shutil.rmtree(partial, ignore_errors=True)
        self._prune(kept)

    def _write_state(self, folder: Path) -> None:
        trainer = self.trainer
        state = {"step": trainer.global_steps, "ledger": trainer.ledger.state_dict(), "algorithm": trainer.algorithm_state()}
        (folder / _STATE).write_text(json.dumps(state))
        write_atomic(folder / _RANDOM, json.dumps(random_states()))

    def _prune(self, keep: int | None) -> None:
        """All but the newest, and the best one where it is to be kept."""
        best = None
        if self.trainer.config.trainer.keep_best:
            best = best_trained(self.trainer.run_log.values(VALIDATION))
        for old in self.steps()[: -keep if keep else None] if keep else []:
            if old != best:
                shutil.rmtree(self.folder / f"global_step_{old}", ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, oldest first."""
        return checkpoint_steps(self.folder)

    def load(self, verl_load: Callable[[], None]) -> None:
        """Resumes as `trainer.resume_mode` says, and cuts the run's jsonl back to the step that it resumes from."""
        trainer, settings = self.trainer, self.trainer.config.trainer
        if settings.resume_mode == "auto" and self.steps():
            # A kill between the rename and the tracker leaves the tracker one behind: the folder is what counts.
            write_atomic(self.folder / _TRACKER, str(self.steps()[-1]))
        verl_load()
        step = trainer.global_steps
        trainer.run_log.start_from(step)
        if step == 0:
            return
        folder = self.folder / f"global_step_{step}"
        if settings.resume_mode == "resume_path":
            folder = Path(settings.resume_from_path)
        if not (folder / _STATE).is_file():
            raise UserError(f"{folder} is not a checkpoint of this system: {_STATE} is missing")
        state = json.loads((folder / _STATE).read_text())
        trainer.ledger.load_state_dict(state["ledger"])
        trainer.load_algorithm_state(state["algorithm"])
        set_random_states(_read_random_states(folder))
        # verl evaluates before training if val_before_train says so; a run of its own has that evaluation in its log.
        trainer.evaluator.skip_next = settings.val_before_train and trainer.run_log.last_step == step


def random_states() -> dict[str, Any]:
    """The states of this process's `random`, numpy and torch, as plain values."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, keys.tolist(), place, has_gauss, gauss],
        "torch": torch.get_rng_state().tolist(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """As `random_states` gave them, in this process or before they went through JSON."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.as_tensor(states["torch"], dtype=torch.uint8))


def _read_random_states(folder: Path) -> dict[str, Any]:
    """Those of a checkpoint; an older one has them as a pickle, which is read as data."""
    if (folder / _RANDOM).is_file():
        return json.loads((folder / _RANDOM).read_text())
    try:
        return torch.load(folder / _RANDOM_BEFORE, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder / _RANDOM_BEFORE} holds no random states ({str(error).splitlines()[0]})") from None


def _flush_to_disk(folder: Path) -> None:
    """So that the rename can't reach the disk before what it names."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
