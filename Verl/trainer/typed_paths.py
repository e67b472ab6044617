"""Relative paths that a user types are relative to the folder they are typed in.

The scripts change to the repository's root, where their own paths begin; before that they keep the user's folder in
BANDIT_CWD. A file or folder that is read is looked for in the user's folder first and then at the repository's root; what
is written goes to the user's folder. Paths inside the repository are passed on as from its root, so that a run has the
same settings wherever the repository lies and wherever the command was given.
"""

import os
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from Verl import REPO_ROOT
from Verl.trainer.overrides import PATHS, quoted

GROUPS = ("data.benchmarks",)  # of files that are read, by name
WRITTEN = ("run.result_dir", "run.figure_dir", "trainer.default_local_dir", "trainer.rollout_data_dir",
           "trainer.validation_data_dir")  # fmt: skip
READ = tuple(key for key in PATHS if key not in WRITTEN)


def users_folder() -> Path:
    """Where the command was typed."""
    return Path(os.environ.get("BANDIT_CWD") or os.getcwd())


def resolved(overrides: list[str], folder: Path | None = None) -> list[str]:
    """The user's overrides with their relative paths resolved against `folder` (default: where the command was typed)."""
    return [_resolved(text, folder or users_folder()) for text in overrides]


def _resolved(text: str, folder: Path) -> str:
    key, _, value = text.partition("=")
    name = key.lstrip("+")
    group = next((one for one in GROUPS if name == one or name.startswith(f"{one}.")), None)
    if not value or (name not in (*READ, *WRITTEN) and group is None):
        return text
    if value.startswith("~"):
        value = str(Path(value).expanduser())
        text = f"{key}={quoted(value)}"
    try:
        given = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:  # a letter that Hydra wants in quotation marks, of which a shell leaves none
        if value[0] in "[{'\"":
            return text  # not to be read: composing the config says so
        given, text = value, f"{key}={quoted(value)}"
    if not isinstance(given, str | list | dict):
        return text
    paths = _paths(given, name, folder)
    return text if paths == given else f"{key}={_written(paths)}"


def _paths(given: Any, name: str, folder: Path) -> Any:
    """The same value with its paths resolved: a text, a list, or a group of them by name."""
    if isinstance(given, dict):
        return {one: _paths(value, name, folder) for one, value in given.items()}
    return [_path(one, name, folder) for one in given] if isinstance(given, list) else _path(given, name, folder)


def _written(paths: Any) -> str:
    """As Hydra reads it."""
    if isinstance(paths, dict):
        return "{" + ",".join(f"{quoted(str(name))}:{_written(value)}" for name, value in paths.items()) + "}"
    return f"[{','.join(map(_written, paths))}]" if isinstance(paths, list) else quoted(str(paths))


def _path(given: Any, name: str, folder: Path) -> Any:
    if not isinstance(given, str) or "://" in given or "${" in given or given in ("", "null"):
        return given
    path = Path(given)
    if not path.is_absolute():
        here = folder / path
        if name not in WRITTEN and not here.exists():
            return given  # as from the repository's root, or a model's name on the Hub
        path = Path(os.path.normpath(here))
    elif given == str(path):
        return given
    return str(path.relative_to(REPO_ROOT)) if path.is_relative_to(REPO_ROOT) and path != REPO_ROOT else str(path)

