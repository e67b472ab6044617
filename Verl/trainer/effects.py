"""What each key of a run's config changes: the table effects.yaml, and the launcher's use of it.

The table is measured by `python -m tests.benchmarks.effects`. A key that a user types and that changes nothing under the
run's other settings is bad input: the run would carry it in its name and be the run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.ppo import conditions

TABLE = Path(__file__).with_name("effects.yaml")

# What a changed value changes. rounding: speed or memory, and numbers by rounding alone.
CLASSES = ("training", "evaluation", "rounding", "speed", "files", "name", "nothing")


@dataclass(frozen=True)
class KeyEffect:
    """One row: a key, or a group of keys (`critic.*`).

    what: one of CLASSES. when: a name in conditions.py; without it the key changes nothing. why: the reason where it
    changes nothing. instead: the key that does what this one says. entry: the entry point that it is measured with. tried: the
    value that is measured, if it can't be derived from the default. beside: the settings that it is measured under. refused:
    another value may be refused or fail on a CPU. measured: False where it can't be measured on a CPU.
    """

    key: str
    what: str
    when: str | None = None
    why: str | None = None
    instead: str | None = None
    entry: str | None = None
    tried: Any = None
    beside: tuple[str, ...] = ()
    refused: bool = False
    measured: bool = True

    @property
    def is_group(self) -> bool:
        return "*" in self.key

    def covers(self, key: str) -> bool:
        return fnmatchcase(key, self.key)

    def why_inert(self, config: DictConfig) -> str | None:
        """The reason why the key changes nothing under these settings; None if it does change something."""
        if self.what == "nothing":
            return f"{self.why}{f'; set {self.instead}' if self.instead else ''}"
        if self.when is None:
            return None
        condition = getattr(conditions, self.when)
        return None if condition(config) else condition.otherwise


@cache
def table() -> tuple[KeyEffect, ...]:
    """The rows of effects.yaml, in its order."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 0.01 s instead of 0.13 where libyaml is there
    rows = yaml.load(TABLE.read_text(), Loader=loader)
    return tuple(KeyEffect(key, **{**row, "beside": tuple(row.get("beside", ()))}) for key, row in rows.items())


@cache
def effect_of(key: str) -> KeyEffect | None:
    """The row of a key, else the group with the longest name that covers it."""
    rows = [row for row in table() if row.covers(key)]
    return max(rows, key=lambda row: (not row.is_group, len(row.key)), default=None)


def refuse_inert(config: DictConfig, typed: Iterable[str], compose_without: Callable[[], DictConfig]) -> None:
    """Refuse what a user typed and what changes nothing.

    Args:
        config: the composed config.
        typed: the user's overrides.
        compose_without: composes the config without them, for a value that is what it would be anyway: that is accepted.

    Raises:
        UserError: with key, value, reason and what to do.
    """
    for key, value in _typed_keys(config, typed):
        row = effect_of(key)
        reason = row.why_inert(config) if row else None
        if reason and value != OmegaConf.select(compose_without(), key, default=None):
            raise UserError(f"{key}={_shown(value)} changes nothing: {reason}; or leave it out")


def _typed_keys(config: DictConfig, typed: Iterable[str]) -> list[tuple[str, Any]]:
    """Leaf keys and values that overrides set; an override of a group of keys sets all of them."""
    found = []
    for text in typed:
        key = text.lstrip("+~").split("=")[0]
        node = OmegaConf.select(config, key, default=None)
        if OmegaConf.is_dict(node) and not effect_of(key):
            found += [(f"{key}.{name}", OmegaConf.select(node, name)) for name in node]
        else:
            found.append((key, node))
    return found


def _shown(value: Any) -> str:
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return plain if isinstance(plain, str) else json.dumps(plain)
