"""Factors requested on the command line: `--vary KEY=level,level,...` around a base arm, with `--cross` all combinations.

The arms are as study.yaml would hold them, named by what they change, in a copy of the study that nothing writes.
A level that the base has anyway is the base. Everything that can be known to be wrong is said here, before a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from Verl.design.arms import Arm, Factor, Pair
from Verl.design.declared import Study
from Verl.design.differences import differences, undeclared
from Verl.errors import UserError
from Verl.study import starting
from Verl.study.shipped import Prepared
from Verl.trainer import overrides
from Verl.trainer.effects import effect_of
from Verl.trainer.naming import MAX_NAME, arm_name, short_key, variant
from Verl.trainer.ppo.estimators import size_of

# What a study has an option for, or what makes another pair: key: what to give instead.
_ELSEWHERE = {
    "seed": "give --seeds", "trainer.total_training_steps": "give --steps", "run.result_dir": "give --result",
    "model": "choose another --pair", "data": "choose another --pair",
}  # fmt: skip
_NOT_TRAINING = {"files": "what is kept", "name": "a name", "speed": "how fast a run is", "evaluation": "how it is measured"}


@dataclass(frozen=True)
class Varied:
    """One `--vary`: a key and its levels, as typed."""

    key: str
    levels: tuple[str, ...]
    option: str = "--vary"


@dataclass(frozen=True)
class VariedArm:
    """An arm as study.yaml would hold it, and how it is run: as `start` with `levels` (key=value) on top."""

    declared: Arm
    start: Arm
    levels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.declared.name


@dataclass(frozen=True)
class Tuned:
    """The runs of a tuning: arm -> value as typed -> the arm with that value."""

    key: str
    at_values: dict[str, dict[str, str]]


@dataclass(frozen=True)
class StudyRequest:
    """What a study is to run and compare.

    Args:
        study, pair: those of study.yaml, with the arms among theirs; the factors are the requested ones alone.
        arms: in order, the reference among them.
        reference: the arm that the others are compared with.
        grid: with `--cross`, the arm of every combination: a level of each factor, in their order -> arm.
        titles: of the requested factors.
        tuned: with `--tune`, what it runs: `arms` then holds each arm at each value.
        maker: what made the arms, and knows their configs.
    """

    study: Study
    pair: Pair
    arms: tuple[VariedArm, ...]
    reference: str
    maker: ArmMaker
    grid: dict[tuple[str, ...], str]
    titles: tuple[str, ...] = ()
    tuned: Tuned | None = None


def parse(texts: Sequence[str], option: str = "--vary") -> list[Varied]:
    """`KEY=level,level,...` texts.

    Raises:
        UserError: a text that is none, a level twice, or a key that stands in two of them.
    """
    found = []
    for text in texts:
        key, equals, values = text.lstrip("+").partition("=")
        levels = [level.strip() for level in split(values)]
        if not equals or not key or not all(levels):
            raise UserError(f"{option} {text}: write KEY=level,level,... such as actor_rollout_ref.rollout.n=2,8")
        if twice := [level for level in levels if levels.count(level) > 1]:
            raise UserError(f"{option} {key} has the level {twice[0]} twice: leave one out")
        if key in _ELSEWHERE:
            raise UserError(f"{option} {key} is not a factor of a study: {_ELSEWHERE[key]} instead")
        found.append(Varied(key, tuple(levels), option))
    return found


def split(values: str) -> list[str]:
    """The text between commas that stand in no brackets and no quotes: `[1,2],'a,b'` has two parts."""
    parts, depth, quote = [""], 0, ""
    for letter in values:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def refuse_same_key(varied: Sequence[Varied], shared: Sequence[str], derived: dict[str, str]) -> None:
    """Two factors, or a factor and what every run is given, that set the same key, directly or by what follows from it."""
    keys = [(one.key, f"{one.option} {one.key}") for one in varied]
    keys += [(overrides.key_of(text), text) for text in shared]
    for place, (key, said) in enumerate(keys[: len(varied)]):
        for other, also in keys[place + 1 :]:
            both = {key, derived.get(key, key)} & {other, derived.get(other, other)}
            if both or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise UserError(f"{said} and {also} set the same key ({min(both, default=key)}): leave one of them out")


class ArmMaker:
    """Makes arms of declared arms and levels, checked.

    Args:
        shared: what every run of the study is given on top (key=value), without a seed.
    """

    def __init__(self, study: Study, pair: Pair, shared: Sequence[str], folder: Path):
        self.study, self.pair, self.shared, self.folder = study, pair, list(shared), folder
        self._known: dict[tuple[str, tuple[str, ...]], Prepared] = {}

    def prepared(self, start: Arm, levels: Sequence[str] = ()) -> Prepared:
        """The checked config at seed 0. Raises UserError for whatever is wrong with it."""
        key = start.name, tuple(levels)
        if key not in self._known:
            self._known[key] = starting.prepare(start, self.pair, [*levels, *self.shared, "seed=0"], self.folder)
        return self._known[key]

    def arm(self, start: Arm, levels: Sequence[str]) -> VariedArm:
        """The arm with these levels, those left out that it has anyway."""
        base = self.prepared(start)
        levels = [text for text in levels if self._moves(start, text, base)]
        if not levels:
            return VariedArm(start, start)
        one = self.prepared(start, levels)
        self._fits(one, levels)
        if one.name == base.name:
            raise UserError(f"{' '.join(levels)} makes no arm of its own: it is no part of what {start.name} trains")
        arm = self._arm(start, levels, one)
        self._differs_in(start, arm, one, levels)
        for declared in self.study.arms.values():
            if _sizes_and_keys(declared) == _sizes_and_keys(arm) and self.prepared(declared).flat == one.flat:
                return VariedArm(declared, declared)  # study.yaml's own, under its name: what was run of it is not run again
        if arm.name in self.study.arms:
            raise UserError(f"study.yaml has an arm {arm.name} that is another arm than {' '.join(levels)}: rename it there")
        return VariedArm(arm, start, tuple(levels))

    def _moves(self, start: Arm, text: str, base: Prepared) -> bool:
        """Whether a level differs from what the arm has; refused where it is none that trains."""
        key = overrides.key_of(text)
        row = effect_of(key)
        value = _value(self.prepared(start, [text]), key)
        if value == _value(base, key):
            return False
        if row is not None and row.what in _NOT_TRAINING:
            raise UserError(f"{text} changes {_NOT_TRAINING[row.what]} and not the training: choose a key that trains")
        if any(overrides.key_of(own) == key for own in start.settings):
            raise UserError(f"{start.name} is made of its own {key}, which {text} would undo: choose another base")
        return True

    def _fits(self, one: Prepared, levels: Sequence[str]) -> None:
        """Where the data are not on this machine, so that they were not counted: what study.yaml says of them."""
        size, questions = one.config.data.train_batch_size, self.study.data[self.pair.data]["train"]
        if one.missing and size > questions:
            raise UserError(
                f"{' '.join(levels)}: data.train_batch_size={size} is larger than the training data of {self.pair.name} "
                f"({questions} questions): leave that level out"
            )

    def _arm(self, start: Arm, levels: Sequence[str], one: Prepared) -> Arm:
        config, known = one.config, list(overrides.keys_of(one.config))
        estimator = config.algorithm.adv_estimator
        size = size_of(estimator)
        last = OmegaConf.select(config, size.key, default=None) if size else None
        numbers = {"queries": config.data.train_batch_size, "rollouts": config.actor_rollout_ref.rollout.n}
        plain = arm_name(estimator, *numbers.values(), last, start.variant)
        room = MAX_NAME - len(f"{plain}__{self.pair.name}_seed0")
        own = [text for text in levels if variant([text], known)]  # without those that the arm's name says already
        words = [start.variant, variant(levels, known, room=room)]
        arm = replace(
            start, estimator=estimator, **numbers, settings=(*start.settings, *own),
            variant="_".join(filter(None, words)) or None, changes=None, expect=None,
            extra=last if size and size.word == "extra" else None, window=last if size and size.word == "window" else None,
        )  # fmt: skip
        return replace(arm, name=arm.named_by_its_settings)

    def _differs_in(self, start: Arm, arm: Arm, one: Prepared, levels: Sequence[str]) -> None:
        """In the levels' keys, and in nothing else: as `design.py diff` says it."""
        keys = tuple(overrides.key_of(text) for text in levels)
        found = differences(self.prepared(start).flat, one.flat, self.study.derived)
        beyond = undeclared(found, Factor(arm.name, arm.name, keys))
        if beyond:
            one_key = beyond[0]
            raise UserError(
                f"{' '.join(levels)} also changes {one_key.key} ({one_key.a} and {one_key.b}), so that {arm.name} and "
                f"{start.name} differ in more than one factor: vary that key, or fix it for every run with {one_key.key}=..."
            )


def _sizes_and_keys(arm: Arm) -> tuple:
    """What two arms of one config have in common, however their values are written."""
    keys = sorted(overrides.key_of(text) for text in arm.settings)
    return arm.estimator, arm.queries, arm.rollouts, arm.extra, arm.window, keys


def _value(one: Prepared, key: str) -> Any:
    value = OmegaConf.select(one.config, key, default=None)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def requested(maker: ArmMaker, base: Arm, varied: Sequence[Varied], cross: bool) -> StudyRequest:
    """The arms and factors of `--vary` texts around a base.

    Raises:
        UserError: a key, a level or a combination that cannot be a factor here.
    """
    levels = [_levels(maker, base, one) for one in varied]
    if cross and len(varied) < 2:
        raise UserError("--cross takes every combination of several factors: give --vary at least twice, or leave it out")
    if cross:
        grid = {combination: maker.arm(base, [f"{one.key}={level}" for one, level in zip(varied, combination)])
                for combination in product(*(of_key.values() for of_key in levels))}  # fmt: skip
        found = list(grid.values())
        factors = [_factor(maker, base, varied, [arm.declared for arm in found], found[0].declared)]
        reference = found[0]
    else:
        grid, reference = {}, VariedArm(base, base)
        found, factors = [reference], []
        for one, of_key in zip(varied, levels):
            further = [maker.arm(base, [f"{one.key}={level}"]) for level in of_key.values()]
            factors.append(_factor(maker, base, [one], [base, *(arm.declared for arm in further if arm != reference)], base))
            found += [arm for arm in further if arm != reference]
    names = [arm.name for arm in found]
    arms = {**maker.study.arms, **{arm.name: arm.declared for arm in found}}
    study = replace(maker.study, arms=arms, factors={factor.name: factor for factor in factors})
    pair = maker.pair.with_arms(names)
    of_grid = {key: arm.name for key, arm in grid.items()}
    return StudyRequest(study, pair, tuple(found), reference.name, maker, of_grid, tuple(factor.title for factor in factors))


def against(request: StudyRequest, arm: str | None, among_arms: bool = True) -> StudyRequest:
    """The same with another reference. Raises UserError unless it is one of the arms, if it has to be."""
    names = [arm.name for arm in request.arms]
    if arm is not None and among_arms and arm not in names:
        raise UserError(f"--against {arm} is not among the arms: choose from {', '.join(names)}")
    return request if arm is None else replace(request, reference=arm)


def _levels(maker: ArmMaker, base: Arm, one: Varied) -> dict[Any, str]:
    """Value -> level as typed, the base's own first, if it is among them: of two texts for one value the first stays."""
    found: dict[str, str] = {}
    own = repr(_value(maker.prepared(base), one.key))
    for level in one.levels:
        maker.arm(base, [text := f"{one.key}={level}"])
        found.setdefault(repr(_value(maker.prepared(base, [text]), one.key)), level)
    if set(found) == {own}:
        raise UserError(f"{one.option} {one.key}={','.join(one.levels)}: {base.name} has that anyway: give another level")
    return {own: found[own], **found} if own in found else found


def _factor(maker: ArmMaker, base: Arm, varied: Sequence[Varied], arms: Sequence[Arm], reference: Arm) -> Factor:
    known = list(overrides.keys_of(maker.prepared(base).config))
    words = [short_key(one.key, known) for one in varied]
    levels = [f"{word} {', '.join(one.levels)}" for word, one in zip(words, varied)]
    return Factor(
        name="_x_".join(word.replace(".", "_") for word in words), title=" × ".join(levels),
        keys=tuple(one.key for one in varied), arms=tuple(dict.fromkeys(arm.name for arm in arms)),
        question=f"What difference does {' and '.join(words)} make, at {base.name}?", reference=reference.name,
        beyond=tuple(dict.fromkeys(arm.name for arm in arms)),
    )  # fmt: skip
