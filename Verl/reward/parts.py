"""The parts of a reward: what a user's reward function returns in its dictionary beside "score".

A number is averaged into the metric `reward/<name>` and kept per response; any other value is kept per response as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

KEY = "parts"  # of verl's reward_extra_info
METRIC, TEXT = "reward/", "reward_text/"  # begin the names of columns; the first those of metrics too
TAKEN = ("failures", "timeouts")  # metrics of ours under METRIC
MOST = 32  # parts of one response: each is a metric of every line
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")

Part = float | str


def reward_and_parts(result: Any) -> tuple[float, dict[str, Part]]:
    """What a reward function returned: its score, and the parts where it is a dictionary.

    Raises:
        ValueError, TypeError: no number, not a finite one, a dictionary without "score", or a part that can't be one.
    """
    if not isinstance(result, Mapping):
        score, parts = result, {}
    elif "score" not in result:
        raise ValueError(f"the reward function returned a dictionary without 'score': {list(result)[:8]}")
    else:
        score, parts = result["score"], parts_of(result)
    reward = float(score)
    if not math.isfinite(reward):
        raise ValueError(f"the reward function returned {reward}")
    return reward, parts


def parts_of(result: Mapping[Any, Any]) -> dict[str, Part]:
    """The parts of one reward, by name in order; an entry that is None is no part.

    Raises:
        ValueError: a name that can't be a metric's, one of ours, or too many.
    """
    found = {name: value for name, value in result.items() if name != "score" and value is not None}
    for name in found:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"the reward function returned the part {name!r}: name it with letters, digits, points, dashes and underscores"
            )
        if name in TAKEN:
            raise ValueError(f"the reward function returned the part {name!r}; {METRIC}{name} is a metric of ours: rename it")
    if len(found) > MOST:
        raise ValueError(f"the reward function returned {len(found)} parts beside the score: {MOST} are the most")
    return {name: _plain(found[name]) for name in sorted(found)}


def _plain(value: Any) -> Part:
    """A number, truth values among them, as float; anything else as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | np.bool_ | np.number):
        return float(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a tensor or array of one number
        return _plain(value.item())
    return json.dumps(value, default=str, ensure_ascii=False)


def gathered(parts: Sequence[Mapping[str, Part]]) -> dict[str, list[Part | None]]:
    """Name -> one entry per response, None where it has no such part."""
    names = sorted({name for one in parts for name in one})
    return {name: [one.get(name) for one in parts] for name in names}


def joined(first: Mapping[str, list], size: int, second: Mapping[str, list], more: int) -> dict[str, list[Part | None]]:
    """The parts of `size` responses and then those of `more` others."""
    names = sorted({*first, *second})
    return {name: [*first.get(name, [None] * size), *second.get(name, [None] * more)] for name in names}


def means(parts: Mapping[str, Iterable[Part | None]]) -> dict[str, float]:
    """Mean of each part over the responses that have it as a finite number; a part that none has is left out."""
    found = {}
    for name, values in parts.items():
        numbers = [value for value in values if isinstance(value, float) and np.isfinite(value)]
        if numbers:
            found[f"{METRIC}{name}"] = float(np.mean(numbers))
    return found


def columns(parts: Mapping[str, Sequence[Part | None]]) -> dict[str, list]:
    """Columns of a file: `reward/<name>` of numbers and `reward_text/<name>` of texts, so that a column has one type."""
    found: dict[str, list] = {}
    for name, values in parts.items():
        for prefix, kind in ((METRIC, float), (TEXT, str)):
            if any(isinstance(value, kind) for value in values):
                found[f"{prefix}{name}"] = [value if isinstance(value, kind) else None for value in values]
    return found
