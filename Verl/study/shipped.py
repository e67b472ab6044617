"""What the scripts in Running-Bash would run: their arguments, and the checked config behind them, many at a time.

A script's `--print-args` says what it would pass to its entry point. `prepare` makes of that what
`Verl.trainer.launch.prepare` makes of it (a test compares the two), but composes each algorithm's defaults once: Hydra
takes 0.4 s for reading verl's forty files, and there are some 160 scripts.
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.study.design import BASH
from Verl.trainer import effects, published, settings, typed_paths
from Verl.trainer.checks import check
from Verl.trainer.naming import comparable, config_hash, name_run
from Verl.trainer.ppo.estimators import check_script
from Verl.trainer.run_checks import settle_resume


@dataclass(frozen=True)
class Prepared:
    """A script's run as it would start: its config, and what this machine lacks for it."""

    script: str
    algorithm: str
    config: DictConfig
    missing: list[str]

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
    user = typed_paths.resolved(user)
    config = compose(algorithm, published.expand(scripted, user))
    with open_dict(config):
        settle_resume(config)
        config.run.arm, config.run.name = name_run(config, user)
        for key in ("result_dir", "figure_dir"):
            config.run[key] = str((REPO_ROOT / config.run[key]).resolve())
        config.run.dir = str(Path(config.run.result_dir) / config.run.name)
    effects.refuse_inert(config, user, lambda: compose(algorithm, published.expand(scripted, [])))
    check_script(scripted, user)
    with hub_left_alone():
        return Prepared(script, algorithm, config, check(config, algorithm))


@cache
def _defaults(algorithm: str, device: str) -> DictConfig:
    return settings._hydra(algorithm, [f"device={device}"])


@cache
def _accepted(text: str, algorithm: str, device: str) -> object:
    """The value of one override, checked against the defaults once for all scripts that pass it."""
    settings.check_overrides([text], _defaults(algorithm, device))
    return OverridesParser.create().parse_override(text)


def compose(algorithm: str, overrides: Sequence[str]) -> DictConfig:
    """As `Verl.trainer.settings.compose`, for overrides that only set values (no groups, no sweeps)."""
    if algorithm not in settings.ALGORITHMS:
        raise UserError(f"algorithm={algorithm} is unknown: choose {', '.join(settings.ALGORITHMS)}")
    asked = [text.split("=", 1)[1] for text in overrides if text.lstrip("+").startswith("trainer.device=")]
    device = asked[-1] if asked and asked[-1] != "auto" else ("cuda" if settings.gpu_present() else "cpu")
    if device not in ("cpu", "cuda"):
        raise UserError(f"trainer.device={device} is unknown: choose auto, cpu or cuda")
    config = copy.deepcopy(_defaults(algorithm, device))
    try:
        for text in overrides:
            override = _accepted(text, algorithm, device)
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the settings don't compose: {str(error).splitlines()[0]}") from None
    config.trainer.device = device
    return config


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
