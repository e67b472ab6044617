"""A model folder that is whole or not there, and is built once.

The folder is written under a hidden name beside its place and renamed at the end, so a kill, a full disk or a power cut
leaves no folder that a run could load by mistake. `base_model.json`, the folder's record, names the recipe it was built
by; a folder with the same recipe is not built again. It holds no clock, path or host: same build, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from Verl.errors import UserError
from Verl.files import locked

RECORD = "base_model.json"


def build_once(
    target: Path, recipe: dict[str, Any], build: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """Make sure `target` holds the model of `recipe`; return (its record, whether it was built just now).

    `build(folder)` fills an empty folder and returns facts for the record. Processes that ask for one target at once
    wait for the first and then find it done. Raises UserError if `target` holds something else than our models.
    """
    target = Path(target).absolute()
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder that does not exist yet with --out")
    recipe = json.loads(json.dumps(recipe))  # as it will be read back: tuples become lists
    record = read_record(target)
    if record is not None and record["recipe"] == recipe:  # before the lock: in another user's checkout there is none to take
        return record, False
    with locked(target.parent / f".{target.name}.lock"):
        record = read_record(target)
        if record is not None and record["recipe"] == recipe:
            return record, False
        if target.exists() and any(target.iterdir()) and not (target / RECORD).exists():
            raise UserError(f"{target} holds files that are not ours (no {RECORD}); give another folder with --out")
        if not os.access(target.parent, os.W_OK | os.X_OK):  # another user's: its lock can be held all the same
            raise UserError(f"{target} can't be made: no permission in {target.parent}; ask its owner, or give --out")
        _remove_leftovers(target)
        partial = Path(tempfile.mkdtemp(prefix=_partial_prefix(target), dir=target.parent))
        try:
            facts = build(partial)
            record = {"recipe": recipe, **facts, "files": _list_files(partial)}
            (partial / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
            _sync(partial)
            _swap_in(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # already renamed away if all went well
    return record, True


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a whole model folder; None if there is none or a file of it is missing or has another size."""
    try:
        record = json.loads((folder / RECORD).read_text())
        whole = all((folder / name).stat().st_size == entry["bytes"] for name, entry in record["files"].items())
        return record if whole and "recipe" in record else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _partial_prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _remove_leftovers(target: Path) -> None:
    """Delete what killed builds of this target left; safe because we hold its lock."""
    for leftover in target.parent.iterdir():
        if leftover.name.startswith(_partial_prefix(target)):
            shutil.rmtree(leftover)


def _list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file, by name."""
    files = {}
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    return files


def _swap_in(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`, with an older model there set aside first and deleted last."""
    partial.chmod(0o755)  # mkdtemp makes it private, and safetensors its file
    for path in partial.iterdir():
        path.chmod(0o644)
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=_partial_prefix(target), dir=target.parent)) / target.name
        target.rename(old)
    partial.rename(target)
    if old is not None:
        shutil.rmtree(old.parent)


def _sync(folder: Path) -> None:
    """Have the disk hold every file before the rename makes them the model."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
