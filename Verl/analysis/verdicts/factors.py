"""The arms of a factor of study.yaml on a pair, and what each is compared with: for the figures and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import pandas as pd

from Verl.design.declared import Factor, Pair, declared


def _pair(pair: str, arms: Iterable[str]) -> Pair | None:
    """The declared pair, with arms that have no script there and were run all the same."""
    found = declared().pairs.get(pair)
    return found.with_arms(arm for arm in arms if arm in declared().arms) if found else None


def _members(factor: Factor, pair: str, arms: Iterable[str]) -> dict[str, str]:
    """Published arm -> the arm of this pair in its place. On a pair that is not declared: the published arms."""
    of_pair = _pair(pair, arms)
    return of_pair.members(factor) if of_pair else dict(zip(factor.members, factor.members))


def _has(pair: Pair | None, arm: str) -> bool:
    return pair is None or arm in pair.arms


def arms_of(factor: Factor, pair: str, present: Sequence[str]) -> list[str]:
    """The arms that a factor has on a pair, in order: declared ones whether run or not, patterns by what is there.

    ``present``: arms with runs on the pair. Empty if there is nothing to compare here.
    """
    of_pair, members = _pair(pair, present), _members(factor, pair, present)
    reference = members.get(factor.reference, factor.reference)
    arms: list[str] = []
    for name in [*factor.also, reference, *members.values()]:
        fitting = [arm for arm in sorted(present) if fnmatchcase(arm, name)] if "*" in name else [name]
        arms += [arm for arm in fitting if arm not in arms and ("*" in name or _has(of_pair, arm))]
    if len(factor.members) > 1:
        compared = _compared(factor, members, arms)
        if not compared or (factor.optional and not {*compared}.intersection(factor.beyond, present)):
            return []
    return sorted(arms, key=lambda arm: _rank(factor, reference, members, arm))


def _compared(factor: Factor, members: dict[str, str], arms: Sequence[str]) -> list[str]:
    """The arms that the factor is about, without those that they are compared with or that are only drawn beside them."""
    partners = {members.get(name, name) for name in (factor.reference, *(partner for _, partner in factor.matched))}
    return [arm for arm in arms if arm not in partners and arm not in factor.also]


def _rank(factor: Factor, reference: str, members: dict[str, str], arm: str) -> tuple[int, int]:
    """Base line first, then what is drawn beside the arms and what matched arms are compared with, then the arms."""
    order = list(members.values())
    if arm == declared().base_line:
        return 0, 0
    if arm in factor.also or (arm == reference and factor.matched):
        return 1, 0
    return 2, order.index(arm) if arm in order else len(order)


def comparisons_of(factor: Factor, pair: str, arms: Sequence[str]) -> list[tuple[str, str]]:
    """(arm, what it is compared with) of a factor on a pair, for the arms that ``arms_of`` gave: partners, then reference."""
    members = _members(factor, pair, arms)
    reference = members.get(factor.reference, factor.reference)
    matched = [(members.get(arm), members.get(partner)) for arm, partner in factor.matched]
    found = [two for two in matched if two[0] in arms and two[1] in arms and two[1] != reference]
    return found + [(arm, reference) for arm in _compared(factor, members, arms)]


def pairs_of(factor: Factor, table: pd.DataFrame, pairs: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Pair -> the factor's arms there, for the given pairs (default: all that have runs); pairs without any left out."""
    present = table.groupby("pair")["arm"].unique() if len(table) else {}
    found = {
        pair: arms_of(factor, pair, list(present.get(pair, [])))
        for pair in (sorted(present.keys()) if pairs is None else pairs)
    }
    return {pair: arms for pair, arms in found.items() if arms}


def family_of(factor: Factor, arms_by_pair: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    """(pair, arm, compared with) over all pairs: one family for Holm's correction."""
    return [(pair, *two) for pair, arms in arms_by_pair.items() for two in comparisons_of(factor, pair, arms)]
