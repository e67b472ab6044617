"""From a command line to the checked config of a run, with its name and folder. Nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.trainer import effects, overrides, preparation, settings, typed_paths
from Verl.trainer.chat_template import settle_template
from Verl.trainer.config_checks import check
from Verl.trainer.machine_checks import check_unprepared, lacking
from Verl.trainer.naming import name_run
from Verl.trainer.ppo.estimators import check_script
from Verl.trainer.run_checks import settle_resume


def prepare(
    algorithm: str,
    scripted: Sequence[str],
    user: Sequence[str],
    to_the_end: bool = True,
    first_use: Callable[[DictConfig], None] | None = None,
) -> tuple[DictConfig, list[str]]:
    """(the run's config, what this machine lacks for it, a sentence each).

    Args:
        algorithm: grpo, bandit or replay.
        scripted: key=value texts of the script; empty where there is none.
        user: those that were typed.
        to_the_end: look for everything that is missing, not only for the first.
        first_use: prepares model and data; called once the settings, and what it does not make, are known to be right.

    Raises:
        UserError: for the first setting that is wrong whatever the machine.
    """
    config = composed(algorithm, scripted, user)
    check(config, algorithm)
    check_script(scripted, user)
    if first_use is not None:
        if folders := [REPO_ROOT / entry.folder for entry in preparation.wanted(config).values()]:
            check_unprepared(config, folders)
        first_use(config)
    return config, lacking(config, to_the_end)


def composed(algorithm: str, scripted: Sequence[str], user: Sequence[str]) -> DictConfig:
    """The config with the run's name and folder; refused where a typed setting would change nothing."""
    user = typed_paths.resolved(list(user))
    config = settings.compose(algorithm, scripted, user)
    choices = [text for text in user if settings.is_choice(text)]
    typed = [text for text in user if not settings.is_choice(text)]
    for key in ("run.name", "run.dir"):
        if any(overrides.key_of(text) == key for text in typed):
            raise UserError(f"{key} is made of what a run does: give run.arm or run.variant, or run.result_dir for the place")
    with open_dict(config):
        settle_resume(config)
        settle_template(config)
        config.run.arm, config.run.name = name_run(config, typed)
        for key in ("result_dir", "figure_dir"):
            config.run[key] = str((REPO_ROOT / config.run[key]).resolve())
        config.run.dir = str(Path(config.run.result_dir) / config.run.name)
    effects.refuse_inert(config, typed, lambda: settings.compose(algorithm, scripted, choices))
    return config
