"""A model and a data set are prepared on first use, by the command that their file under config/ names.

`run.prepare.<model or data>.command` is a shell text, carried out at the repository's root with `python` as the run's own; it
does nothing where everything is there. `folder` is what it fills: where the run takes its model or data from elsewhere, nothing
is prepared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT
from Verl.trainer import settings

_USES = {"model": ("actor_rollout_ref.model.path",), "data": ("data.train_files", "data.val_files", "data.test_files")}


def wanted(config: DictConfig) -> list[DictConfig]:
    """The entries of `run.prepare` whose folders the run uses."""
    entries = [(config.run.prepare[kind], keys) for kind, keys in _USES.items()]
    return [entry for entry, keys in entries if entry.command and any(_within(config, key, entry.folder) for key in keys)]


def prepare(config: DictConfig, output: IO[str] | None = None) -> int:
    """Carry out what is to be prepared, and return the exit status; what is printed goes to `output` (default: as ours).

    Nothing for a run that needs a GPU on a machine without one: it could not start.
    """
    if config.trainer.device == "cuda" and not settings.gpu_present():
        return 0
    for entry in wanted(config):
        done = subprocess.run(
            ["bash", "-euc", f'python() {{ "$PYTHON" "$@"; }}\n{entry.command}'], cwd=REPO_ROOT, stdout=output,
            env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": _python_path()},
        )  # fmt: skip
        if done.returncode:
            return done.returncode
    return 0


def _within(config: DictConfig, key: str, folder: str) -> bool:
    value = OmegaConf.select(config, key, throw_on_missing=False)
    paths = [value] if isinstance(value, str) else list(value or ())
    return any((REPO_ROOT / path).is_relative_to(REPO_ROOT / folder) for path in paths)


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(REPO_ROOT), os.environ.get("PYTHONPATH")]))
