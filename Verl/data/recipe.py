"""What made the rows of a prepared set, and whether the code would make the same ones now.

Training reads the finished prompt from the parquet, so a prompt that is changed in the code would change nothing for a set that
is prepared already. Each manifest therefore has a `recipe`: one example row as the code rendered it (prompt, ground truth,
fields) and the settings of the task; for a script of a user's own beside the set, that script's hash. A run compares it with
what the code gives now, and takes no set that differs. A parquet file without a manifest is nobody's but its owner's.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from Verl.data.row_checks import DataError
from Verl.data.schema import MANIFEST, SCRIPT, how_to_prepare, script_recipe

_IN_WORDS = {"reward_model": "the ground truth", SCRIPT: f"its {SCRIPT}"}


class Outdated(DataError):
    """A prepared set that the code would now make otherwise."""


class _Maker(NamedTuple):
    """Where a data set's `recipe()` and `defaults()` are found, and the script that prepares it."""

    module: str
    name: str
    script: str

    def target(self) -> Any:
        module = import_module(self.module)
        return getattr(module, self.name) if self.name else module


MAKERS = {
    "GSM8K": _Maker("Verl.data.gsm8k", "GSM8K", "Dataset/gsm8k/prepare.py"),
    "MATH": _Maker("Verl.data.hendrycks_math", "MATH", "Dataset/MATH/prepare.py"),
    "reasoning-gym": _Maker("Verl.data.arithmetic", "", "Dataset/arithmetic/prepare.py"),
}


def check_current(path: Path) -> None:
    """Raises Outdated, one sentence with the command, if `path` is of a prepared set that the code would now make otherwise."""
    path = Path(path)
    manifest = _manifest(path.parent)
    if manifest is not None and path.name in _files(manifest) and (changed := _changed(path.parent, manifest)):
        raise Outdated(f"{path.parent}: {changed}; {_command(path.parent, manifest)}")


def outdated(folder: Path) -> str | None:
    """Why a set is to be prepared, in words: it is not there, or the code would now make it otherwise; else None."""
    manifest = _manifest(Path(folder))
    return f"there is no {MANIFEST}" if manifest is None else _changed(Path(folder), manifest)


def script_may_prepare(folder: Path) -> bool:
    """Whether a script's own command would lose nothing: not where the set was made with options of somebody's own (another
    test set, a local source). A run on such a set says which command to give."""
    manifest = _manifest(Path(folder))
    return manifest is None or _made_by_default(manifest)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _files(manifest: dict[str, Any]) -> set[str]:
    try:
        return {entry["file"] for entry in manifest["splits"].values()}
    except (KeyError, TypeError, AttributeError):
        return set()


def _recorded(manifest: dict[str, Any]) -> dict[str, Any]:
    recipe = manifest.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _maker(manifest: dict[str, Any]) -> _Maker | None:
    """Which of our data sets it is: as recorded, or in a manifest without a recipe by its source."""
    first = str(_recorded(manifest).get("maker") or manifest.get("source") or "").split(" ")[0]
    return MAKERS.get(first)


def _changed(folder: Path, manifest: dict[str, Any]) -> str | None:
    """What has changed since, in words; None if nothing has, or if this code did not make the set."""
    recorded, maker = _recorded(manifest), _maker(manifest)
    if maker is not None:
        now = json.loads(json.dumps(maker.target().recipe()))
    elif script := script_recipe(folder):
        now = script["made"]
    else:
        return None
    if not recorded:
        return f"its {MANIFEST} is of an older version, which does not say by what prompt and settings it was made"
    made = recorded.get("made")
    made = made if isinstance(made, dict) else {}
    keys = [key for key in {**made, **now} if made.get(key) != now.get(key)]
    if not keys:
        return None
    words = [_IN_WORDS.get(key, f"the {key}") for key in keys]
    return f"{', '.join(words)} {'has' if len(keys) == 1 else 'have'} changed in the code since this set was prepared"


def _made_by_default(manifest: dict[str, Any]) -> bool:
    recorded, maker = _recorded(manifest), _maker(manifest)
    if recorded:
        return not recorded.get("options")
    if maker is None:
        return True  # by the script beside it
    settings = manifest.get("settings", {})
    from_hub = all(entry["file"].startswith("hub:") for entry in settings.get("read", []))
    return from_hub and all(settings.get(name) == value for name, value in maker.target().defaults().items())


def _command(folder: Path, manifest: dict[str, Any]) -> str:
    recorded, maker = _recorded(manifest), _maker(manifest)
    command = how_to_prepare(folder) if maker is None else f"run: python {maker.script} --out {folder}"
    if options := recorded.get("options"):
        return " ".join([command, *map(str, options)])
    own = not recorded and not _made_by_default(manifest)
    return f"{command}, with the options that its {MANIFEST} names under settings" if own else command
