"""`--save NAME`: the requested factor and its arms, written into study.yaml; nothing else in the file changes.

Text is put in at the places where the YAML parser finds the ends of `extra`, of `factors` and of the pair, so that comments,
order and line breaks stay. The result is read again before it is written: it holds what was there and what was added.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from Verl.design import declared as design
from Verl.design.arms import Arm, Factor
from Verl.design.declared import Study
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.study import scripts
from Verl.study.vary import StudyRequest

_SIZES = ("estimator", "queries", "rollouts", "extra", "window", "variant")


def write(study: Study, request: StudyRequest, pair: str, name: str, folder: Path) -> str:
    """Writes factors and arms to study.yaml of `folder`, and their scripts; a line on what was written.

    Raises:
        UserError: a factor of that name is there and another one, or study.yaml is written in a way that can't be added to.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"--save {name}: a factor's name has small letters, digits and underscores, a letter first")
    factors = _named(request, name)
    if known := [factor for factor in factors if factor.name in study.factors]:
        there = study.factors[known[0].name]
        if all(_same(factor, study.factors.get(factor.name)) for factor in factors):
            return f"the factor {name} is in study.yaml already"
        raise UserError(f"--save {name}: study.yaml has another factor {there.name} ({there.title}): choose another name")
    arms = [arm.declared for arm in request.arms if arm.name not in study.arms]
    scripted = [arm.name for arm in request.arms if arm.name not in study.pairs[pair].arms]
    path = folder / design.DESIGN_FILE.name
    text = added(path.read_text(), arms, factors, pair, scripted)
    write_atomic(path, text)
    changed = scripts.write_missing(design.load(path), folder)
    return f"saved the factor {name} to {path.name}, with {len(arms)} new arms and {len(changed)} files: {', '.join(changed)}"


def _named(request: StudyRequest, name: str) -> list[Factor]:
    """The requested factors under the user's name: one of several gets its key's word behind it."""
    factors = [factor for factor in request.study.factors.values() if factor.title in request.titles]
    if len(factors) == 1:
        return [replace(factors[0], name=name)]
    return [replace(factor, name=f"{name}_{re.sub(r'[^a-z0-9]+', '_', factor.name.lower())}") for factor in factors]


def _same(factor: Factor, other: Factor | None) -> bool:
    return other is not None and (factor.keys, set(factor.arms)) == (other.keys, set(other.arms))


def added(text: str, arms: list[Arm], factors: list[Factor], pair: str, scripted: list[str]) -> str:
    """study.yaml's text with these arms, factors, and arms that get scripts on the pair.

    Raises:
        UserError: the file does not then hold what it should.
    """
    of_arms = {arm.name: _arm(arm) for arm in arms}
    of_factors = {factor.name: _factor(factor) for factor in factors}
    wanted = yaml.safe_load(text)
    wanted["extra"] = {**(wanted.get("extra") or {}), **of_arms}
    wanted["factors"] |= of_factors
    more = [*wanted["pairs"][pair].get("more", []), *scripted]
    wanted["pairs"][pair] |= {"more": more} if more else {}
    places = _children(yaml.compose(text))
    found = [(_end(text, places["extra"]), _lines(of_arms)) if "extra" in places else (0, _lines({"extra": of_arms}, 0))]
    found += [(_end(text, places["factors"]), _lines(of_factors))]
    found += [_in_pair(text, _children(places["pairs"])[pair], scripted)] if scripted else []
    for place, what in sorted(found, key=lambda two: two[0], reverse=True):
        text = text[:place] + what + text[place:]
    try:
        whole = yaml.safe_load(text) == wanted
    except yaml.YAMLError:
        whole = False
    if not whole:
        raise UserError("--save: study.yaml is written in a way that nothing can be added to by itself: add the factor by hand")
    return text


def _arm(arm: Arm) -> dict[str, Any]:
    entry = {key: getattr(arm, key) for key in _SIZES if getattr(arm, key) is not None}
    return entry | ({"settings": list(arm.settings)} if arm.settings else {})


def _factor(factor: Factor) -> dict[str, Any]:
    entry = {"title": factor.title, "question": factor.question, "keys": list(factor.keys), "arms": list(factor.arms)}
    return entry | ({"reference": factor.reference} if factor.reference != factor.arms[0] else {})


def _lines(entries: Mapping[str, Any], indent: int = 2) -> str:
    """Block mapping entries; what they hold in flow style."""
    found = []
    for name, entry in entries.items():
        found.append(f"{' ' * indent}{name}:")
        found += [f"{' ' * (indent + 2)}{key}: {_flow(value)}" for key, value in entry.items()]
    return "".join(f"{line}\n" for line in found)


def _flow(value: Any) -> str:
    """A value in one line: plain words where YAML reads them as such, else JSON, which is YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.=+-]*", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _children(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value}


def _end(text: str, node: yaml.Node) -> int:
    """Where the line ends that the last of a node stands on: what follows it, comments before the next key, stays behind."""
    while not node.flow_style and isinstance(node, yaml.CollectionNode) and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
        if isinstance(node, yaml.ScalarNode):
            break
    last = len(text[: node.end_mark.index].rstrip())
    end = text.find("\n", last)
    return len(text) if end < 0 else end + 1


def _in_pair(text: str, pair: yaml.MappingNode, names: list[str]) -> tuple[int, str]:
    """Where, and what, makes these arms the pair's."""
    listed = ", ".join(names)
    more = _children(pair).get("more")
    if more is not None and more.flow_style:
        inside = text[: more.end_mark.index - 1].rstrip()
        return len(inside), f",\n           {listed}" if more.value else listed
    if more is not None:
        indent = " " * more.start_mark.column
        return _end(text, more), "".join(f"{indent}- {name}\n" for name in names)
    if pair.flow_style:
        return len(text[: pair.end_mark.index - 1].rstrip()), f", more: [{listed}]"
    return _end(text, pair), f"{' ' * pair.start_mark.column}more: [{listed}]\n"
