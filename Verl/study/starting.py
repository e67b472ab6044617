"""How a run of an arm starts: by its script, or, where it has none on a pair, by what the script would set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from Verl import REPO_ROOT
from Verl.design.declared import BASH, Arm, Pair, script_name
from Verl.study import scripts, shipped
from Verl.trainer import run_config
from Verl.trainer.typed_paths import users_folder

ENTRY = "Verl.trainer.main_ppo_"


def prepare(arm: Arm, pair: Pair, user: Sequence[str] = (), folder: Path = BASH) -> shipped.Prepared:
    """The checked config of an arm on a pair, whether it has a script there or not.

    Raises:
        UserError: for whatever is wrong with the arm or the overrides, in one sentence.
    """
    name = script_name(arm.name, pair.name)
    if (folder / name).is_file():
        return shipped.prepare(name, user, folder)
    algorithm, scripted = scripts.arguments(arm, pair, folder)
    with shipped.hub_left_alone():
        return shipped.Prepared(name, algorithm, *run_config.prepare(algorithm, scripted, user), tuple(scripted))


def command(script: Path, algorithm: str, unscripted: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """What starts a run: `bash SCRIPT overrides`, or the entry point with the settings that a script would hold.

    Args:
        unscripted: those settings; empty where there is a script.
    """
    if not unscripted:
        return ["bash", str(script), *overrides]
    arguments = ["-m", f"{ENTRY}{algorithm}", *unscripted, "@", *overrides]
    recorded = f"BANDIT_COMMAND={shlex.join(['python', *arguments])}"  # what run.json names as the run's command
    return ["env", "-C", str(REPO_ROOT), f"BANDIT_CWD={users_folder()}", recorded, sys.executable, *arguments]
