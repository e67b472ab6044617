"""The declared design: Running-Bash/study.yaml, read and checked. See that file for what its entries mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from Verl import REPO_ROOT
from Verl.design.arms import AXES, OVERVIEWS, Arm, Factor, Pair
from Verl.errors import UserError
from Verl.trainer import settings
from Verl.trainer.ppo.estimators import EXTRA, WINDOW, estimators, usable

BASH = REPO_ROOT / "Running-Bash"
DESIGN_FILE = BASH / "study.yaml"


@dataclass(frozen=True)
class Study:
    """The whole of study.yaml."""

    base_line: str
    smallest: str  # the pair on which the effect check trains
    arms: dict[str, Arm]
    factors: dict[str, Factor]
    pairs: dict[str, Pair]
    derived: dict[str, str]
    models: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    machines: dict[str, dict[str, Any]]
    detectable: dict[str, Any]

    @cached_property
    def scripts(self) -> dict[str, tuple[Arm, Pair]]:
        """File name: what it runs, for every declared script."""
        return {
            script_name(arm, pair.name): (self.arms[arm], pair) for pair in self.pairs.values() for arm in pair.arms
        }

    def pair(self, name: str) -> Pair:
        if name not in self.pairs:
            raise UserError(f"there is no pair {name!r} in study.yaml{_hint(name, self.pairs)}")
        return self.pairs[name]

    def arm(self, name: str, pair: Pair) -> Arm:
        if name not in self.arms:
            raise UserError(f"there is no arm {name!r} in study.yaml{_hint(name, pair.arms)}")
        if name not in pair.arms and name in pair.excluded:
            raise UserError(f"the arm {name} is not declared for {pair.name}: its arms are {', '.join(pair.arms)}")
        return self.arms[name]

    def chosen(self, pair: Pair, names: Iterable[str], factors: Iterable[str]) -> list[Arm]:
        """Arms by name and by factor, each once, whether they have a script on this pair or not; `all`: those that have."""
        names, everywhere = list(names), pair.with_arms(self.arms)
        for factor in factors:
            if factor == "all":
                names += pair.arms
            elif factor not in self.factors:
                raise UserError(f"--factor {factor} is unknown: choose all, {', '.join(self.factors)}")
            else:
                self._refuse_without_gpu(self.factors[factor], pair)
                names += everywhere.compared(self.factors[factor])
        return [self.arm(name, pair) for name in dict.fromkeys(names)]

    def _refuse_without_gpu(self, factor: Factor, pair: Pair) -> None:
        if factor.gpu and "bandwidth_gb_s" not in self.machines[pair.machine]:
            raise UserError(f"--factor {factor.name} can't be run on {pair.name}: {factor.gpu}; choose a pair with a GPU")

    def split_script(self, text: str) -> tuple[Arm, Pair]:
        """Arm and pair of `run_grpo_0032_8_tiny_arith.sh`, `grpo_0032_8_tiny_arith` and the like."""
        wanted = script_name(text.removeprefix("run_").removesuffix(".sh"))
        if wanted not in self.scripts:
            raise UserError(f"there is no script {wanted} in study.yaml{_hint(wanted, self.scripts)}")
        return self.scripts[wanted]


def script_name(arm: str, pair: str | None = None) -> str:
    return f"run_{arm}_{pair}.sh" if pair else f"run_{arm}.sh"


@cache
def declared() -> Study:
    """The design of this repository, read once."""
    return load()


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
    groups = {group: raw.get(group) or {} for group in ("arms", "scaled", "extra")}
    arms = {name: _arm(name, entry, where) for group in groups.values() for name, entry in group.items()}
    published = tuple(raw["arms"])
    factors = {name: _factor(name, entry, published, where) for name, entry in raw["factors"].items()}
    for factor in factors.values():
        _check_factor(factor, arms, where)
    pairs = {name: _pair(name, dict(entry), published, arms, where) for name, entry in raw["pairs"].items()}
    models, data = ({name: settings.about(kind, name) for name in settings.names(kind)} for kind in settings.GROUPS)
    for pair in pairs.values():
        for kind, known in (("model", models), ("data", data), ("machine", raw["machines"])):
            if getattr(pair, kind) not in known:
                raise UserError(f"{where}: pair {pair.name} names the {kind} {getattr(pair, kind)!r}, which is not declared")
    if raw["base_line"] not in arms:
        raise UserError(f"{where}: the base line {raw['base_line']!r} is not a declared arm")
    if raw["smallest"] not in pairs:
        name = raw["smallest"]
        raise UserError(f"{where}: smallest names the pair {name!r}, which is not declared{_hint(name, pairs)}")
    rest = {key: raw[key] for key in ("derived", "machines", "detectable")}
    return Study(raw["base_line"], raw["smallest"], arms, factors, pairs, models=models, data=data, **rest)


def _arm(name: str, entry: dict[str, Any], where: str) -> Arm:
    arm = Arm(name, **{**entry, "settings": tuple(entry.get("settings", ()))})
    if arm.estimator not in usable():
        raise UserError(f"{where}: arm {name} names the estimator {arm.estimator!r}{_hint(arm.estimator, usable())}")
    _check_sizes(arm, where)
    _check_window(arm, where)
    if arm.settings and not arm.variant:
        raise UserError(f"{where}: arm {name} has settings of its own: give it a variant, a word that names them")
    if arm.named_by_its_settings != name:
        raise UserError(f"{where}: arm {name} has the settings of {arm.named_by_its_settings}: correct one of them")
    return arm


def _check_sizes(arm: Arm, where: str) -> None:
    """The numbers that the arm's estimator takes, all of them and no other."""
    one = estimators()[arm.estimator]
    for size in (EXTRA, WINDOW):
        if (getattr(arm, size.word) is not None) != (one.size is size):
            needs = f"needs {size.word}, a number" if one.size is size else f"takes no {size.word}"
            raise UserError(f"{where}: arm {arm.name}: the estimator {one.name} {needs}")
    if one.needs_several and arm.rollouts == 1:
        raise UserError(f"{where}: arm {arm.name}: {one.name} needs rollouts of at least 2: {one.needs_several}")


def _check_window(arm: Arm, where: str) -> None:
    """A window that one step's rewards fill replays nothing: the arm would be one without replay under another name."""
    if arm.window is None or arm.window > arm.rollouts:
        return
    if any(text.startswith("algorithm.replay.") for text in arm.settings):  # another baseline, or without this step's rewards
        return
    raise UserError(
        f"{where}: arm {arm.name} has window: {arm.window}, which the rewards of its {arm.rollouts} rollouts fill in one "
        "step, so that nothing is replayed: give it a window larger than its rollouts"
    )


def _factor(name: str, entry: dict[str, Any], published: tuple[str, ...], where: str) -> Factor:
    lists = {key: tuple(entry.get(key, ())) for key in ("keys", "arms", "also", "trial")}
    lists |= {"axes": tuple(entry.get("axes", ("steps",))), "matched": tuple(tuple(two) for two in entry.get("matched", ()))}
    if not lists["arms"] and not lists["matched"]:
        raise UserError(f"{where}: factor {name} compares nothing: give it arms, or matched")
    first = lists["matched"][0][1] if lists["matched"] else lists["arms"][0]
    question = f"What difference does it make: {entry['title']}?"
    factor = Factor(**{"name": name, "reference": first, "question": question, **entry, **lists})
    return replace(factor, beyond=tuple(name for name in factor.members if name not in published))


def _check_factor(factor: Factor, arms: dict[str, Arm], where: str) -> None:
    for name in [*factor.members, factor.reference]:
        if name not in arms:
            raise UserError(f"{where}: factor {factor.name} names the arm {name!r}, which is not declared{_hint(name, arms)}")
        product = arms[name].queries * arms[name].rollouts
        if factor.product not in (None, product):
            raise UserError(f"{where}: factor {factor.name} holds queries x rollouts at {factor.product}; {name} has {product}")
    if not factor.keys and len(factor.members) > 1:
        raise UserError(f"{where}: factor {factor.name} has no keys: name the settings that its arms may differ in")
    if not isinstance(factor.source, str):  # an arXiv number without quotes is a number, and loses its zeros
        raise UserError(f"{where}: factor {factor.name} has the source {factor.source}: put it in quotes")
    if factor.name in OVERVIEWS:
        raise UserError(f"{where}: factor {factor.name} has the name of a plot script over all factors: rename it")
    for axis in factor.axes:
        if axis not in AXES:
            raise UserError(f"{where}: factor {factor.name} names the axis {axis!r}{_hint(axis, AXES)}")


def _pair(name: str, entry: dict[str, Any], published: tuple[str, ...], arms: dict[str, Arm], where: str) -> Pair:
    stands_for = entry.pop("stands_for", {})
    without = entry.pop("without", [])
    scaled = [arm for mapping in stands_for.values() for arm in mapping]
    names = [arm for arm in entry.pop("only", published) if arm not in without]
    names = list(dict.fromkeys([*names, *scaled, *entry.pop("more", [])]))
    for arm in [*names, *without, *(one for mapping in stands_for.values() for one in mapping.values())]:
        if arm not in arms:
            raise UserError(f"{where}: pair {name} names the arm {arm!r}, which is not declared{_hint(arm, arms)}")
    excluded = frozenset(arm for arm in (*published, *without) if arm not in names)
    return Pair(name, arms=tuple(names), stands_for=stands_for, excluded=excluded, **entry)


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(sorted(known))}"
