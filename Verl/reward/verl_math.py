r"""MATH by the rule of verl 0.9.1 to the letter: `verl/utils/reward_score/math_reward.py`, which is verl's own code here.

That file is loaded alone, from verl's folder: importing it as a part of `verl` would import torch and Ray, which scoring,
preparing data and reading results do without. The last `\boxed{...}` counts, and both it and the truth are respelt as in
Hendrycks et al. 2021. Its effects that surprise, all of them measured against it in the tests:

- wherever a `\boxed ` with a space stands, what follows the last one counts, up to the next `$`: of `$\boxed 11$` and a
  later `\boxed{10}` the first; and `\boxed {5}` reads as `{5}`, which is not 5;
- `\fbox{...}` is found and never read; a `%` without its backslash and the sign for degrees stay; a unit `\text{ ...}` is
  cut wherever it stands, with all behind it; where a spelling can't be read (two units, `\frac` at the end), the texts are
  compared as they are.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from Verl.errors import UserError


@cache
def rule() -> ModuleType:
    """verl's file as a module of its own.

    Raises:
        UserError: verl is not installed.
    """
    package = importlib.util.find_spec("verl")  # finds the folder without running verl
    if package is None or not package.submodule_search_locations:
        raise UserError("verl is not installed, and MATH is scored by its rule: run `bash Running-Bash/setup.sh` first")
    path = Path(package.submodule_search_locations[0]) / "utils" / "reward_score" / "math_reward.py"
    spec = importlib.util.spec_from_file_location("_verl_math_reward", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(text: str) -> str | None:
    """What the rule reads as the answer, or None where it reads none. verl's `compute_score` scores that 0."""
    try:
        box = rule().last_boxed_only_string(text)
        return None if box is None else rule().remove_boxed(box)
    except (AssertionError, IndexError):  # remove_boxed: an \fbox, or a box that a later brace closes
        return None


def is_right(text: str, truth: str) -> bool:
    """verl's `compute_score` of a response, without what that prints."""
    found = answer(text)
    return found is not None and bool(rule().is_equiv(found, truth))


def respelt(found: str) -> str:
    """An answer in the spelling in which the rule compares it."""
    try:
        return rule().strip_string(found)
    except (AssertionError, IndexError):
        return found
