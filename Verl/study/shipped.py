"""What the scripts in Running-Bash would run: their arguments, and the checked config behind them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig

from Verl.design.declared import BASH
from Verl.errors import UserError
from Verl.trainer import run_config
from Verl.trainer.naming import comparable, config_hash


@dataclass(frozen=True)
class Prepared:
    """A script's run as it would start: its config, and what this machine lacks for it.

    `unscripted`: the settings of an arm that has no script on the pair; `script` is then what it would be called."""

    script: str
    algorithm: str
    config: DictConfig
    missing: list[str]
    unscripted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.config.run.name

    @cached_property
    def flat(self) -> dict[str, object]:
        """The resolved config as flat keys, without seeds and what does not change a run's numbers."""
        return comparable(self.config, with_seed=False)

    @cached_property
    def hash(self) -> str:
        return config_hash(self.config)


def print_args(script: str, user: Sequence[str] = (), folder: Path = BASH) -> tuple[str, list[str], list[str]]:
    """(algorithm, the script's overrides, the user's), as the script itself prints them.

    Raises:
        UserError: with the script's own sentence, if it refuses.
    """
    path = folder / script
    if not path.is_file():
        raise UserError(f"there is no script {script} in {folder.name}: `python Running-Bash/design.py show` lists them")
    done = subprocess.run(["bash", str(path), *user, "--print-args"], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise UserError(f"{script}: {said[-1].removeprefix('error: ')}")
    module, *rest = done.stdout.splitlines()
    at = rest.index("@")
    return module.removeprefix("Verl.trainer.main_ppo_"), rest[:at], rest[at + 1 :]


def prepare(script: str, user: Sequence[str] = (), folder: Path = BASH) -> Prepared:
    """The checked config of a script, with its run's name, and what this machine lacks for it.

    Raises:
        UserError: for whatever is wrong with the script or the overrides, in one sentence.
    """
    algorithm, scripted, user = print_args(script, user, folder)
    with hub_left_alone():
        return Prepared(script, algorithm, *run_config.prepare(algorithm, scripted, user))


@contextmanager
def hub_left_alone() -> Iterator[None]:
    """No look-ups on the Hugging Face Hub within: what a design says must not depend on the network.

    A model that is not in the Hub's cache counts as missing on this machine.
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
