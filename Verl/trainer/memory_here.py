"""The plan's memory against the GPU that is here: for a dry run, and before a run is started."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import yaml
from omegaconf import DictConfig

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.trainer import settings
from Verl.trainer.memory import ModelSize, memory, too_small
from Verl.trainer.settings import gpu_present

STUDY_FILE = REPO_ROOT / "Running-Bash" / "study.yaml"


def gpu_gib() -> float | None:
    """Memory of the smallest GPU here, in GiB, as its driver says it; None without one."""
    if not gpu_present():
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        texts = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
        return min(float(text) for text in texts) / 1024
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def _planned_machine() -> Mapping[str, Any] | None:
    """The first machine of study.yaml with GPU memory. Verl.design reads the whole file; a run needs this entry only."""
    try:
        machines = yaml.safe_load(STUDY_FILE.read_text())["machines"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{STUDY_FILE.name} can't be read: {' '.join(str(error).split())}") from None
    return next((one for one in machines.values() if "memory_gib" in one), None)


def memory_by_plan(config: DictConfig) -> tuple[str, str | None] | None:
    """What the plan says of a run's memory, and the sentence that refuses it, if it does not fit.

    Against the GPU that is here, else the one that study.yaml plans with. None for a run on a CPU, and for a model
    whose sizes its file does not have.
    """
    if config.trainer.device != "cuda" or config.run.model not in settings.names("model"):
        return None
    sizes, machine = settings.about("model", config.run.model), _planned_machine()
    if machine is None:
        return None
    here = gpu_gib()
    found = memory(
        ModelSize.of(sizes), config, here or machine["memory_gib"], machine["reserve_gib"]
    )
    where = "the GPU here" if here else machine["title"]
    says = f"memory by plan: generating {found.generate:.1f} GiB, updating {found.update:.1f} GiB, of {found.total:.1f} GiB"
    return f"{says} on {where}", too_small(config.run.name, found)
