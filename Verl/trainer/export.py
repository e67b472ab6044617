"""A run's checkpoint as a Hugging Face folder: which one is meant, and the folder that is whole or not there."""

from __future__ import annotations

import difflib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.files import locked
from Verl.trainer.best import VALIDATION, best_step, scores_of
from Verl.trainer.ppo.checkpoint_files import checkpoint_steps

_STEP = "global_step_"


@dataclass(frozen=True)
class ChosenCheckpoint:
    """A checkpoint to export.

    Args:
        checkpoint: its folder.
        run: the folder of the run that it belongs to; None where it was moved away from it.
        why: why this one, for the console and the model card.
        scores: what the run's jsonl says, by step.
    """

    checkpoint: Path
    run: Path | None
    why: str
    scores: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def step(self) -> int | None:
        """The checkpoint's step; None for a folder that does not say it."""
        number = self.checkpoint.name.removeprefix(_STEP)
        return int(number) if number.isdigit() else None


def choose(model: str, result_dir: Path, step: int | None = None, best: bool = False) -> ChosenCheckpoint:
    """Find the checkpoint that is meant.

    Args:
        model: a run's name in `result_dir`, a run's folder, or a checkpoint `<run>/checkpoints/global_step_<k>`.
        step: of a run's saved steps; the last one if neither this nor `best` is given.
        best: the saved step with the best score on the validation questions, never on test; of equal ones the first.

    Raises:
        UserError: no such run, no checkpoint, a step that is not saved, no validation score.
    """
    if step is not None and best:
        raise UserError(f"--step {step} and --best exclude each other: give one of them")
    folder = Path(model).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--model {model} is a file: give a run, or a checkpoint's folder")
    if not folder.is_dir():
        folder = _named(model, result_dir)
    if folder.name == "checkpoints":
        folder = folder.parent
    checkpoints = _checkpoints_of(folder)
    if checkpoints is None:
        return _single(model, folder.absolute(), step, best)
    run, scores = folder.absolute(), read_scores(folder)
    steps = checkpoint_steps(checkpoints)
    if not steps:
        raise UserError(f"--model {model}: the run has no checkpoint (trainer.save_freq says how often one is saved)")
    if best:
        step, why = _best(model, steps, scores)
    elif step is None:
        step, why = steps[-1], f"the last of the saved steps {_listed(steps)}"
    elif step not in steps:
        raise UserError(f"--step {step}: the run has no checkpoint of that step; saved are {_listed(steps)}")
    else:
        why = f"one of the saved steps {_listed(steps)}"
    return ChosenCheckpoint(checkpoints / f"{_STEP}{step}", run, why, scores)


def _named(model: str, result_dir: Path) -> Path:
    if model not in ("", ".", "..") and (result_dir / model).is_dir():
        return result_dir / model
    near = difflib.get_close_matches(model, [path.parent.name for path in result_dir.glob("*/run.json")], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"--model {model}: no such folder, and no run of that name in {result_dir}{hint}")


def _checkpoints_of(folder: Path) -> Path | None:
    """Where a run's checkpoints lie; None for a folder that is no run."""
    own = folder / "checkpoints"
    if not own.is_dir() and (folder / "config.yaml").is_file():  # on another disk
        elsewhere = _config(folder).get("trainer", {}).get("default_local_dir")
        if elsewhere and (REPO_ROOT / elsewhere).is_dir():
            return REPO_ROOT / elsewhere
    return own if own.is_dir() or (folder / "run.json").is_file() else None


def _single(model: str, folder: Path, step: int | None, best: bool) -> ChosenCheckpoint:
    if folder.name == "actor":
        folder = folder.parent
    if step is not None or best:
        option = "--best" if best else f"--step {step}"
        raise UserError(f"{option} chooses among a run's checkpoints, and --model {model} is not a run: leave it out")
    run = folder.parent.parent
    whole = (run / "run.json").is_file()
    return ChosenCheckpoint(folder, run if whole else None, "as asked for", read_scores(run) if whole else {})


def _best(model: str, steps: list[int], scores: dict[int, dict[str, float]]) -> tuple[int, str]:
    validated = scores_of({step: row.get(VALIDATION, math.nan) for step, row in scores.items()})
    kept = {step: validated[step] for step in steps if step in validated}
    if not kept:
        at = f"; it was evaluated at {_listed(validated)}" if validated else ""
        raise UserError(
            f"--best: none of the saved steps {_listed(steps)} of {model} has a validation score ({VALIDATION}){at}: "
            "give --step; trainer.keep_best=true saves the best step, evaluation.val_freq says when it is evaluated"
        )
    step = best_step(kept)
    others = ", ".join(f"{other}: {score:.4f}" for other, score in kept.items() if other != step)
    why = f"the best validation Pass@1, {kept[step]:.4f}, of the saved steps{f' ({others})' if others else ''}"
    if unscored := [other for other in steps if other not in kept]:
        why += f"; not evaluated on validation: {_listed(unscored)}"
    over_all = best_step(validated)
    if validated[over_all] > kept[step]:
        not_saved = "is not saved (trainer.keep_best=true would have kept it)" if over_all else "is the model before training"
        why += f"; step {over_all} had {validated[over_all]:.4f} and {not_saved}"
    return step, why


def read_scores(run: Path) -> dict[int, dict[str, float]]:
    """A run's evaluation scores `eval/...` by step, from its jsonl; of two lines of one step the last counts."""
    found: dict[int, dict[str, float]] = {}
    path = run.absolute().with_name(f"{run.absolute().name}.jsonl")
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
            row = {key: float(value) for key, value in entry.items() if key.startswith("eval/")}
            found[int(entry["step"])] = row
        except (ValueError, TypeError, KeyError, AttributeError):  # a line that a kill cut short
            continue
    return {step: row for step, row in found.items() if row}


def _config(run: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def records(run: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(run.json, config.yaml) of a run; empty where they are not there or can't be read."""
    if run is None:
        return {}, {}
    try:
        record = json.loads((run / "run.json").read_text())
    except (OSError, ValueError):
        record = {}
    return record if isinstance(record, dict) else {}, _config(run)


def check_out(out: Path) -> None:
    """Raises UserError for a folder that can't be written as a new one."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} exists and is not empty: give another folder, or remove it first")


def write_whole(out: Path, fill: Callable[[Path], None]) -> None:
    """Fill a hidden folder beside `out`, then rename it to `out`, which is so whole or not there.

    Raises:
        UserError: `out` can't be written, or another process writes it.
    """
    out = out.absolute()
    partial = out.with_name(f".{out.name}.partial")
    try:
        busy = f"--out {out} is being written by another process: wait for it"
        with locked(out.with_name(f".{out.name}.lock"), busy, remove=True):
            check_out(out)
            shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
            partial.mkdir()
            try:
                fill(partial)
                for path in partial.iterdir():
                    path.chmod(0o644)  # safetensors makes its files private
                for path in (*partial.iterdir(), partial):
                    handle = os.open(path, os.O_RDONLY)
                    os.fsync(handle)  # or the rename could reach the disk before what it names
                    os.close(handle)
                partial.rename(out)  # takes the place of an empty folder
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--out {out} can't be written to ({error.strerror or error}): give another folder") from error


def _listed(steps: Any) -> str:
    return ", ".join(map(str, steps))
