"""In what the arms' resolved configs differ, from the config.yaml that every run keeps; and whether that is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from Verl.analysis.runs.packed import read_text
from Verl.design.declared import declared
from Verl.design.differences import differences, explaining
from Verl.trainer.naming import comparable

_ABSENT = "(not there)"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster on these thousand lines


@dataclass(frozen=True)
class ConfigRow:
    """One key and its value in every arm, as text; ``source``: the key it follows from, if it is a derived one."""

    key: str
    values: tuple[str, ...]
    source: str | None = None


@dataclass(frozen=True)
class ConfigTable:
    """The keys in which the arms of a pair differ. ``missing``: arms without a config.yaml; ``undeclared``: sentences."""

    pair: str
    arms: tuple[str, ...]
    rows: tuple[ConfigRow, ...]
    missing: tuple[str, ...]
    undeclared: tuple[str, ...]


_UNREADABLE = (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError)


@lru_cache(maxsize=512)
def flat_config(path: Path) -> Mapping[str, Any] | None:
    """A run's config as flat keys, without seeds and what changes no number; None if there is none to read."""
    try:
        return comparable(_read(path), with_seed=False)
    except _UNREADABLE:
        return None


def holds_in(path: Path, condition: Callable[[DictConfig], bool]) -> bool:
    """Whether a condition (`Verl.trainer.ppo.conditions`) holds in a run's config.yaml; not where that can't be read."""
    try:
        return condition(_read(path))
    except _UNREADABLE:
        return False


def _read(path: Path) -> DictConfig:
    return OmegaConf.create(yaml.load(read_text(path), Loader=_LOADER))


def first_runs(table: pd.DataFrame, pair: str) -> dict[str, str]:
    """Arm -> its run of the lowest seed, on one pair."""
    rows = table[table["pair"] == pair].sort_values("seed").drop_duplicates("arm")
    return dict(zip(rows["arm"], rows["run"]))


def config_table(
    result_dir: Path, table: pd.DataFrame, pair: str, arms: Sequence[str], compared: Sequence[tuple[str, str]]
) -> ConfigTable:
    """The differing keys over the arms that were run, and what the compared ones differ in beyond one declared factor."""
    runs = first_runs(table, pair)
    configs = {arm: flat_config(result_dir / runs[arm] / "config.yaml") for arm in arms if arm in runs}
    known = {arm: config for arm, config in configs.items() if config is not None}
    study, found = declared(), {}
    for arm in list(known)[1:]:
        for one in differences(known[next(iter(known))], known[arm], study.derived):
            found[one.key] = found.get(one.key) or one.source
    rows = [
        ConfigRow(key, tuple(str(known[arm].get(key, _ABSENT)) for arm in known), source)
        for key, source in sorted(found.items(), key=lambda item: (item[1] is not None, item[0]))
    ]
    both = [two for two in compared if two[0] in known and two[1] in known]
    undeclared = [text for a, b in both if (text := _beyond_one_factor(known, a, b, pair))]
    return ConfigTable(pair, tuple(known), tuple(rows), tuple(a for a in configs if a not in known), tuple(undeclared))


def _beyond_one_factor(known: Mapping[str, Mapping], a: str, b: str, pair: str) -> str | None:
    """What to know before reading the comparison of two arms, if they differ in more than one declared factor."""
    study = declared()
    found = differences(known[b], known[a], study.derived)
    if not found:
        return f"{a} and {b} do not differ in their configs."
    roots = sorted({one.source or one.key for one in found})
    if a not in study.arms or b not in study.arms or pair not in study.pairs:
        return f"{a} and {b} are not declared for {pair}; they differ in {', '.join(roots)}."
    if explaining(study, found, study.arms[a], study.arms[b], study.pairs[pair]):
        return None
    return f"{a} and {b} differ in {', '.join(roots)}: more than one declared factor."


def why_mixed(result_dir: Path, table: pd.DataFrame) -> list[str]:
    """For arms whose runs have several configurations: in which keys, where the config.yaml files are there."""
    sentences = []
    for (pair, arm), rows in table.groupby(["pair", "arm"]):
        firsts = rows.dropna(subset=["config_hash"]).drop_duplicates("config_hash")
        if len(firsts) < 2:
            continue
        a, b = (flat_config(result_dir / run / "config.yaml") for run in firsts["run"].iloc[:2])
        if a is None or b is None:
            continue
        keys = [f"{one.key} ({one.a} and {one.b})" for one in differences(a, b, {})]
        seeds = " and ".join(str(int(seed)) for seed in firsts["seed"].iloc[:2])
        sentences.append(
            f"{arm} on {pair}: the configs of seeds {seeds} differ in {', '.join(keys) or 'no listed key'}"
        )
    return sentences
