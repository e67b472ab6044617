"""A model and a data set are prepared on first use, by the command that their file under config/ names.

`run.prepare.<model or data>.command` is a shell text, carried out at the repository's root with `python` as the run's own;
`folder` is what it fills. Where the run takes its model or data from elsewhere, nothing is prepared. A model's command does
nothing where everything is there; a data set's is carried out only where the set is missing or the code would now make it
otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT
from Verl.data.recipe import outdated, script_may_prepare
from Verl.trainer import settings

_USES = {"model": ("actor_rollout_ref.model.path",), "data": ("data.train_files", "data.val_files", "data.test_files")}


def wanted(config: DictConfig) -> dict[str, DictConfig]:
    """The entries of `run.prepare` whose folders the run uses, by kind."""
    entries = {kind: config.run.prepare[kind] for kind in _USES}
    return {
        kind: entry
        for kind, entry in entries.items()
        if entry.command and any(_within(config, key, entry.folder) for key in _USES[kind])
    }


def prepare(config: DictConfig, output: IO[str] | None = None) -> int:
    """Carry out what is to be prepared, and return the exit status; what is printed goes to `output` (default: as ours).

    Nothing for a run that needs a GPU on a machine without one: it could not start.
    """
    if config.trainer.device == "cuda" and not settings.gpu_present():
        return 0
    for kind, entry in wanted(config).items():
        if kind == "data" and not _to_be_prepared(entry, output):
            continue
        done = subprocess.run(
            ["bash", "-euc", f'python() {{ "$PYTHON" "$@"; }}\n{entry.command}'], cwd=REPO_ROOT, stdout=output,
            env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": _python_path()},
        )  # fmt: skip
        if done.returncode:
            return done.returncode
    return 0


def _to_be_prepared(entry: DictConfig, output: IO[str] | None) -> bool:
    """Whether a data set is missing or outdated, and not made with options of somebody's own, which would be lost."""
    folder = REPO_ROOT / entry.folder
    why = outdated(folder)
    if not why or not script_may_prepare(folder):
        return False
    print(f"{entry.folder}: {why}: preparing it", file=output, flush=True)
    return True


def _within(config: DictConfig, key: str, folder: str) -> bool:
    value = OmegaConf.select(config, key, throw_on_missing=False)
    paths = [value] if isinstance(value, str) else list(value or ())
    return any((REPO_ROOT / path).is_relative_to(REPO_ROOT / folder) for path in paths)


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(REPO_ROOT), os.environ.get("PYTHONPATH")]))
