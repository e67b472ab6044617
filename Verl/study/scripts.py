"""The text of every run_*.sh, from the design, and which files in Running-Bash differ from it.

A script holds its own few settings and a header that says what they change; the rest stands once in common.sh. A file
with the mark below is ours to write; any other run_*.sh is a researcher's own and left alone.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from Verl.files import write_atomic
from Verl.study.design import BASH, Cell, Pair, Study, script_name
from Verl.study.memory import ModelSize, memory
from Verl.study.plan import reckoned_hours, workload
from Verl.study.shipped import compose, print_args

MARK = "# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says."

_ESTIMATORS = {
    "grpo": "GRPO",
    "onerpo": "One-RPO (mean and std from extra rollouts)",
    "arpo": "The group's mean reward as the signal (ARPO)",
    "asyttgrpo": "GRPO against the query's own past rewards (Asy-TTGRPO)",
    "banditpo": "The mean of the query's past rewards as the signal (BanditPO)",
}
# variant: what it changes, what to expect.
_CONTROLS = {
    "control_random": ("a random reward", "no gain: what rises here is not learnt from the reward"),
    "control_shuffled": ("the batch's rewards dealt out at random", "no gain: no response keeps the reward it earned"),
    "control_format": ("a reward for the format alone", "the format score rises; Pass@1 only as far as it hangs on that"),
    "control_lr0": ("learning rate 0", "Pass@1 moves by sampling noise alone: the width of every other arm's noise"),
}


def text(study: Study, cell: Cell, pair: Pair, folder: Path = BASH) -> str:
    """The script of a cell on a pair; `folder` has common.sh and what it reads."""
    header = [_title(study, cell, pair), *_changes(study, cell, pair), *_stands_for(cell, pair)]
    factors = [factor.title for factor in study.factors_of(cell.name, pair)]
    if factors:
        header.append(f"Factor: {'; '.join(factors)}.")
    header += [_takes(study, cell, pair, folder), *_expect(study, cell, pair)]
    lines = ["#!/usr/bin/env bash", *(line for sentence in header for line in _comment(sentence)), MARK]
    lines += ["# shellcheck disable=SC2034  # common.sh reads them"]
    lines += _settings(cell, pair)
    lines += ["# shellcheck source-path=SCRIPTDIR source=common.sh", 'source "$(dirname "${BASH_SOURCE[0]}")/common.sh"']
    return "\n".join(lines) + "\n"


def _settings(cell: Cell, pair: Pair) -> list[str]:
    settings = [
        ("algorithm", cell.entry),
        ("adv_estimator", cell.estimator),
        ("train_batch_size", cell.queries),
        ("rollout_n", cell.rollouts),
        ("extra_sampling_size", cell.extra),
        ("window_size", cell.window),
        ("variant", cell.variant),
        ("own_arguments", f"({' '.join(cell.settings)})" if cell.settings else None),
        ("model", pair.model),
        ("data", pair.data),
    ]
    return [f"{name}={value}" for name, value in settings if value is not None]


def _comment(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 120, initial_indent="# ", subsequent_indent="#   ")


def _title(study: Study, cell: Cell, pair: Pair) -> str:
    where = f"{study.models[pair.model]['title']} on {study.data[pair.data]['title']}"
    if cell.name == study.base_line:
        return f"The base line, {where}: {cell.queries} queries a step, one rollout each, the 0/1 reward as the signal."
    rollouts = f"{cell.rollouts} rollout{'s' if cell.rollouts > 1 else ''}"
    queries = f"{cell.queries} {'query' if cell.queries == 1 else 'queries'}"
    return f"{_ESTIMATORS.get(cell.estimator, cell.estimator)}, {queries} x {rollouts} a step: {where}."


def _changes(study: Study, cell: Cell, pair: Pair) -> list[str]:
    """What the arm changes: a control against what it controls, any other arm against the base line."""
    if cell.variant:
        against = cell.named_by_its_settings.removesuffix(f"_{cell.variant}")
        change = _CONTROLS[cell.variant][0] if cell.variant in _CONTROLS else " ".join(cell.settings)
        return [f"Against {script_name(against, pair.name)}: {change}."]
    base = study.cells[study.base_line]
    changes = []
    if cell.estimator != base.estimator:
        changes.append(_signal(cell))
    if cell.queries != base.queries:
        changes.append(f"{cell.queries} queries instead of {base.queries}")
    if cell.rollouts != base.rollouts:
        changes.append(f"{cell.rollouts} rollouts per query instead of {base.rollouts}")
        if cell.estimator == "grpo":
            changes.append("so the reward minus the group's mean, over its std, as the signal")
    return [f"Against {script_name(base.name, pair.name)}: {', '.join(changes)}."] if changes else []


def _signal(cell: Cell) -> str:
    if cell.estimator == "onerpo":
        return f"an advantage whose mean and std also count {cell.extra} extra rollouts that are never trained on"
    if cell.window:
        window = f"its query's last {cell.window} rewards"
        return f"the mean of {window} as the signal" if cell.estimator == "banditpo" else f"an advantage against {window}"
    if cell.estimator == "arpo":
        return "the mean reward of its query's rollouts as the signal"
    return f"the estimator {cell.estimator}"


def _stands_for(cell: Cell, pair: Pair) -> list[str]:
    lines = []
    for factor, mapping in pair.stands_for.items():
        if mapping.get(cell.name):
            lines.append(f"Scaled to {pair.data}'s questions: in the factor {factor} it stands for {mapping[cell.name]}.")
    return lines


def _takes(study: Study, cell: Cell, pair: Pair, folder: Path) -> str:
    """Hours by plan where the machine has a data sheet; a CPU's are measured, and the README has them."""
    machine = study.machines[pair.machine]
    if "bandwidth_gb_s" not in machine:
        return f"Takes, on {machine['title']}: see README.md."
    config = _base_line_config(folder, study.cells[study.base_line], pair)
    size = ModelSize.of(study.models[pair.model])
    work = workload(config, study.data[pair.data], steps=100)
    work = replace(work, queries=cell.queries, rollouts=cell.rollouts, extra=cell.extra or 0)
    # The base line's share of the memory: cells of 512 queries and more have a larger one, and are no slower for it.
    found = memory(size, config, machine["memory_gib"], machine["reserve_gib"])
    at_once = max(1, min(found.at_once, config.actor_rollout_ref.rollout.max_num_seqs))
    hours = reckoned_hours(size, work, at_once, machine)
    return (
        f"Takes, on {machine['title']}: about {hours.generate + hours.train:.2g} h per 100 steps if every response is as long "
        f"as it may be, evaluation apart (reckoned from its data sheet x {machine['efficiency']:g}, not measured: see "
        f"`python Running-Bash/design.py plan --pair {pair.name}`)."
    )


@cache
def _base_line_config(folder: Path, base_line: Cell, pair: Pair) -> DictConfig:
    return compose(*arguments(base_line, pair, folder))


def arguments(cell: Cell, pair: Pair, folder: Path = BASH) -> tuple[str, list[str]]:
    """(algorithm, overrides) of a cell's script on a pair, whether the script is there or not."""
    with TemporaryDirectory() as scratch:
        draft = Path(scratch) / script_name(cell.name, pair.name)
        draft.write_text("\n".join([*_settings(cell, pair), f'source "{folder.resolve()}/common.sh"', ""]))
        algorithm, overrides, own = print_args(draft.name, folder=draft.parent)
    return algorithm, [*overrides, *own]


def _expect(study: Study, cell: Cell, pair: Pair) -> list[str]:
    if cell.variant in _CONTROLS:
        return [f"Expect: {_CONTROLS[cell.variant][1]}."]
    if cell.name == study.base_line:
        return ["Expect (published, unconfirmed here): this alone already improves clearly."]
    said = [factor.published for factor in study.factors_of(cell.name, pair) if factor.published]
    return [f"Expect (published, unconfirmed here): {'; '.join(said)}."] if said else []


def drift(study: Study, folder: Path) -> dict[str, str]:
    """File name: what is wrong (missing, differs, not declared), for the scripts in `folder` against the design."""
    found = {}
    for name, (cell, pair) in study.scripts.items():
        path = folder / name
        if not path.is_file():
            found[name] = "missing"
        elif path.read_text() != text(study, cell, pair, folder):
            found[name] = "differs"
    for path in folder.glob("run_*.sh"):
        if path.name not in study.scripts and MARK in path.read_text():
            found[path.name] = "not declared"
    return found


def write(study: Study, folder: Path) -> dict[str, str]:
    """Writes what differs, removes what is ours and no longer declared; returns what was done (as `drift`)."""
    changed = drift(study, folder)
    for name, what in changed.items():
        if what == "not declared":
            (folder / name).unlink()
            continue
        write_atomic(folder / name, text(study, *study.scripts[name], folder))
        (folder / name).chmod(0o755)
    return changed
