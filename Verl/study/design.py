"""The declared design: Running-Bash/study.yaml, read and checked. See that file for what its entries mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.trainer.checks import OURS, VERL_ESTIMATORS

BASH = REPO_ROOT / "Running-Bash"
DESIGN_FILE = BASH / "study.yaml"

# estimator: the entry point that has it. verl's own run under main_ppo_grpo.
ENTRY_POINTS = {name: entry for entry, names in OURS.items() for name in names}
ENTRY_POINTS |= {name: "grpo" for name, reason in VERL_ESTIMATORS.items() if reason is None}


@dataclass(frozen=True)
class Cell:
    """One arm: an estimator and the sizes of its rollout."""

    name: str
    estimator: str
    queries: int
    rollouts: int
    extra: int | None = None
    window: int | None = None
    variant: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        return ENTRY_POINTS[self.estimator]

    @property
    def responses(self) -> int:
        """Responses drawn a step, extra ones too."""
        return self.queries * (self.rollouts + (self.extra or 0))

    @property
    def named_by_its_settings(self) -> str:
        """As Verl/trainer/naming.py composes it."""
        last = self.extra if self.estimator == "onerpo" else self.window
        parts = [self.estimator, f"{self.queries:04d}", self.rollouts, last, self.variant]
        return "_".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class Factor:
    """Cells that may differ in `keys` only."""

    name: str
    title: str
    keys: tuple[str, ...]
    cells: tuple[str, ...] = ()
    matched: tuple[tuple[str, str], ...] = ()
    product: int | None = None
    published: str | None = None

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys([*self.cells, *(cell for pair in self.matched for cell in pair)]))

    def comparisons(self, members: Iterable[str]) -> list[tuple[str, str]]:
        """The pairs of cells to compare among those that are there."""
        there = set(members)
        pairs = [*combinations(self.cells, 2), *self.matched]
        return [pair for pair in pairs if there.issuperset(pair)]


@dataclass(frozen=True)
class Pair:
    """A model on a data set, and the cells that run there."""

    name: str
    model: str
    data: str
    machine: str
    cells: tuple[str, ...]
    stands_for: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)

    def members(self, factor: Factor) -> dict[str, str]:
        """Published cell: the cell of this pair that runs in its place, for the cells of a factor that are here."""
        scaled = {published: cell for cell, published in self.stands_for.get(factor.name, {}).items()}
        here = {cell: scaled.get(cell, cell) for cell in factor.members}
        return {published: cell for published, cell in here.items() if cell in self.cells}

    def comparisons(self, factor: Factor) -> list[tuple[str, str]]:
        """The cells of this pair that a factor compares."""
        members = self.members(factor)
        return [(members[a], members[b]) for a, b in factor.comparisons(members)]

    def compared(self, factor: Factor) -> list[str]:
        """The same, each cell once."""
        return list(dict.fromkeys(cell for two in self.comparisons(factor) for cell in two))


@dataclass(frozen=True)
class Study:
    """The whole of study.yaml."""

    base_line: str
    smallest: str  # the pair on which the effect check trains
    cells: dict[str, Cell]
    factors: dict[str, Factor]
    pairs: dict[str, Pair]
    derived: dict[str, str]
    models: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    machines: dict[str, dict[str, Any]]
    detectable: dict[str, Any]

    @cached_property
    def scripts(self) -> dict[str, tuple[Cell, Pair]]:
        """File name: what it runs, for every declared script."""
        return {
            script_name(cell, pair.name): (self.cells[cell], pair) for pair in self.pairs.values() for cell in pair.cells
        }

    def pair(self, name: str) -> Pair:
        if name not in self.pairs:
            raise UserError(f"there is no pair {name!r} in study.yaml{_hint(name, self.pairs)}")
        return self.pairs[name]

    def cell(self, name: str, pair: Pair) -> Cell:
        if name not in self.cells:
            raise UserError(f"there is no cell {name!r} in study.yaml{_hint(name, pair.cells)}")
        if name not in pair.cells:
            raise UserError(f"the cell {name} is not declared for {pair.name}: its cells are {', '.join(pair.cells)}")
        return self.cells[name]

    def chosen(self, pair: Pair, names: Iterable[str], factors: Iterable[str]) -> list[Cell]:
        """Cells by name and by factor (or `all`), each once."""
        names = list(names)
        for factor in factors:
            if factor == "all":
                names += pair.cells
            elif factor not in self.factors:
                raise UserError(f"--factor {factor} is unknown: choose all, {', '.join(self.factors)}")
            else:
                names += pair.compared(self.factors[factor])
        return [self.cell(name, pair) for name in dict.fromkeys(names)]

    def split_script(self, text: str) -> tuple[Cell, Pair]:
        """Cell and pair of `run_grpo_0032_8_tiny_arith.sh`, `grpo_0032_8_tiny_arith` and the like."""
        wanted = script_name(text.removeprefix("run_").removesuffix(".sh"))
        if wanted not in self.scripts:
            raise UserError(f"there is no script {wanted} in study.yaml{_hint(wanted, self.scripts)}")
        return self.scripts[wanted]

    def factors_of(self, cell: str, pair: Pair) -> list[Factor]:
        """The factors that compare a cell of a pair with another."""
        return [factor for factor in self.factors.values() if any(cell in two for two in pair.comparisons(factor))]


def script_name(cell: str, pair: str | None = None) -> str:
    return f"run_{cell}_{pair}.sh" if pair else f"run_{cell}.sh"


def load(path: Path = DESIGN_FILE) -> Study:
    """Reads and checks the design.

    Raises:
        UserError: naming the entry that is wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} can't be read: {reason}") from None
    try:
        return _build(raw, path.name)
    except TypeError as error:  # dataclasses say which entry they don't know, or miss
        raise UserError(f"{path.name}: an entry is unknown or missing ({str(error).split('__init__() ')[-1]})") from None
    except KeyError as error:
        raise UserError(f"{path.name}: {error.args[0]} is missing, or is not declared where it belongs") from None


def _build(raw: dict[str, Any], where: str) -> Study:
    groups = {group: raw.get(group) or {} for group in ("cells", "scaled", "extra")}
    cells = {name: _cell(name, entry, where) for group in groups.values() for name, entry in group.items()}
    factors = {name: _factor(name, entry) for name, entry in raw["factors"].items()}
    for factor in factors.values():
        _check_factor(factor, cells, where)
    published = tuple(raw["cells"])
    pairs = {name: _pair(name, dict(entry), published, cells, where) for name, entry in raw["pairs"].items()}
    for pair in pairs.values():
        for kind, known in (("model", raw["models"]), ("data", raw["data"]), ("machine", raw["machines"])):
            if getattr(pair, kind) not in known:
                raise UserError(f"{where}: pair {pair.name} names the {kind} {getattr(pair, kind)!r}, which is not declared")
    if raw["base_line"] not in cells:
        raise UserError(f"{where}: the base line {raw['base_line']!r} is not a declared cell")
    if raw["smallest"] not in pairs:
        name = raw["smallest"]
        raise UserError(f"{where}: smallest names the pair {name!r}, which is not declared{_hint(name, pairs)}")
    rest = {key: raw[key] for key in ("derived", "models", "data", "machines", "detectable")}
    return Study(raw["base_line"], raw["smallest"], cells, factors, pairs, **rest)


def _cell(name: str, entry: dict[str, Any], where: str) -> Cell:
    cell = Cell(name, **{**entry, "settings": tuple(entry.get("settings", ()))})
    if cell.estimator not in ENTRY_POINTS:
        raise UserError(f"{where}: cell {name} names the estimator {cell.estimator!r}{_hint(cell.estimator, ENTRY_POINTS)}")
    _check_window(cell, where)
    if cell.settings and not cell.variant:
        raise UserError(f"{where}: cell {name} has settings of its own: give it a variant, a word that names them")
    if cell.named_by_its_settings != name:
        raise UserError(f"{where}: cell {name} has the settings of {cell.named_by_its_settings}: correct one of them")
    return cell


def _check_window(cell: Cell, where: str) -> None:
    """A window that one step's rewards fill replays nothing: the arm would be one without replay under another name."""
    if cell.window is None or cell.window > cell.rollouts:
        return
    if any(text.startswith("algorithm.replay.") for text in cell.settings):  # another baseline, or without this step's rewards
        return
    raise UserError(
        f"{where}: cell {cell.name} has window: {cell.window}, which the rewards of its {cell.rollouts} rollouts fill in one "
        "step, so that nothing is replayed: give it a window larger than its rollouts"
    )


def _factor(name: str, entry: dict[str, Any]) -> Factor:
    matched = tuple(tuple(pair) for pair in entry.get("matched", ()))
    rest = {"keys": tuple(entry["keys"]), "cells": tuple(entry.get("cells", ())), "matched": matched}
    return Factor(name, **{**entry, **rest})


def _check_factor(factor: Factor, cells: dict[str, Cell], where: str) -> None:
    for name in factor.members:
        if name not in cells:
            raise UserError(f"{where}: factor {factor.name} names the cell {name!r}, which is not declared")
        product = cells[name].queries * cells[name].rollouts
        if factor.product not in (None, product):
            raise UserError(f"{where}: factor {factor.name} holds queries x rollouts at {factor.product}; {name} has {product}")


def _pair(name: str, entry: dict[str, Any], published: tuple[str, ...], cells: dict[str, Cell], where: str) -> Pair:
    stands_for = entry.pop("stands_for", {})
    without = entry.pop("without", [])
    scaled = [cell for mapping in stands_for.values() for cell in mapping]
    names = [cell for cell in entry.pop("only", published) if cell not in without]
    names = list(dict.fromkeys([*names, *scaled, *entry.pop("more", [])]))
    for cell in [*names, *without, *(one for mapping in stands_for.values() for one in mapping.values())]:
        if cell not in cells:
            raise UserError(f"{where}: pair {name} names the cell {cell!r}, which is not declared{_hint(cell, cells)}")
    return Pair(name, cells=tuple(names), stands_for=stands_for, **entry)


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(sorted(known))}"
