"""Do two arms differ in what they declare, and in nothing else? Said from the resolved configs, not from the scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from Verl.design.declared import Arm, Factor, Pair, Study

_NAMES_ONLY = ("actor_rollout_ref.rollout.trace.experiment_name",)  # the run's name
_ABSENT = "(not there)"


@dataclass(frozen=True)
class KeyDifference:
    """One key that two configs differ in; `source`: the key it follows from, if it is a derived one."""

    key: str
    a: Any
    b: Any
    source: str | None = None


def differences(a: Mapping[str, Any], b: Mapping[str, Any], derived: Mapping[str, str]) -> list[KeyDifference]:
    """The keys in which two flat configs differ. A key counts as derived only if its source differs as well.

    A source can follow from another key: then the last one that differs is the source.
    """
    keys = [key for key in sorted({*a, *b}) if a.get(key, _ABSENT) != b.get(key, _ABSENT) and key not in _NAMES_ONLY]

    def source(key: str) -> str | None:
        above = derived.get(key)
        return (source(above) or above) if above in keys else None

    return [KeyDifference(key, a.get(key, _ABSENT), b.get(key, _ABSENT), source(key)) for key in keys]


def _covered(key: str, declared: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in declared)


def undeclared(found: list[KeyDifference], factor: Factor) -> list[KeyDifference]:
    """What a factor does not account for: neither declared nor following from a declared key."""
    return [one for one in found if not _covered(one.source or one.key, factor.keys)]


def explaining(study: Study, found: list[KeyDifference], a: Arm, b: Arm, pair: Pair) -> list[Factor]:
    """The factors that compare these two arms and account for all of their difference."""
    requested = {a.name, b.name}
    return [
        factor
        for factor in study.factors.values()
        if any(requested == set(two) for two in pair.comparisons(factor)) and not undeclared(found, factor)
    ]


def single_key(study: Study, found: list[KeyDifference]) -> str | None:
    """The one key that all of a difference comes from, if it is one (for arms that no factor compares)."""
    roots = {one.source or one.key for one in found}
    return roots.pop() if len(roots) == 1 else None


class HasFlatConfig(Protocol):
    """What is compared: a config as flat keys."""

    @property
    def flat(self) -> Mapping[str, Any]: ...


def check_factors(study: Study, prepared: Callable[[str, str], HasFlatConfig], pairs: list[Pair]) -> tuple[int, list[str]]:
    """Every comparison of every factor on the given pairs.

    Args:
        prepared: (arm, pair) -> the script's config.

    Returns:
        how many comparisons there are, and a sentence for each that differs in more than it declares.
    """
    count, problems = 0, []
    for pair in pairs:
        for factor in study.factors.values():
            for a, b in pair.comparisons(factor):
                count += 1
                found = differences(prepared(a, pair.name).flat, prepared(b, pair.name).flat, study.derived)
                for one in undeclared(found, factor):
                    problems.append(
                        f"{pair.name}, factor {factor.name}: {a} and {b} differ in {one.key} ({one.a} and {one.b}), "
                        f"which is not declared ({', '.join(factor.keys)})"
                    )
                if not found:
                    problems.append(f"{pair.name}, factor {factor.name}: {a} and {b} do not differ at all")
    return count, problems
