"""The text of every run_*.sh and plot_<factor>.py, from the design, and which files differ from it.

A script holds its own few settings and a header that says what they change; the rest stands once in common.sh. A file
with one of the marks below is ours to write; any other is a researcher's own and left alone.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from Verl import RESULT_DIR
from Verl.design.declared import BASH, Arm, Pair, Study, script_name
from Verl.files import write_atomic
from Verl.study import factors_page
from Verl.study.plan import reckoned_hours, workload
from Verl.study.shipped import print_args
from Verl.trainer.memory import ModelSize, memory
from Verl.trainer.ppo.estimators import estimators
from Verl.trainer.settings import compose

MARK = "# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says."
_SH = '[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh'
PLOT_MARK = "Written by Running-Bash/generate_scripts.py: one for each factor of study.yaml."


def text(study: Study, arm: Arm, pair: Pair, folder: Path = BASH) -> str:
    """The script of an arm on a pair; `folder` has common.sh and what it reads.

    It depends on its own arm and pair, the base line and, for a variant, the arm without it, so that it stays as it is when
    another arm or a factor is added.
    """
    header = [_title(study, arm, pair), *_changes(study, arm, pair), _takes(study, arm, pair, folder)]
    header += [f"Expect: {arm.expect}."] if arm.expect else []
    header.append(f"Compared with what, and what was published: `python Running-Bash/design.py show --pair {pair.name}`.")
    lines = ["#!/usr/bin/env bash", *(line for sentence in header for line in _comment(sentence)), MARK]
    lines += ["# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh"]
    lines += _body(arm, pair, '"$(dirname "${BASH_SOURCE[0]}")/common.sh"')
    return "\n".join(lines) + "\n"


def _body(arm: Arm, pair: Pair, common: str) -> list[str]:
    return [_SH, f"source {common} # and what it does with them", *_settings(arm, pair), 'run "$@"']


def _settings(arm: Arm, pair: Pair) -> list[str]:
    settings = [
        ("algorithm", arm.entry),
        ("adv_estimator", arm.estimator),
        ("train_batch_size", arm.queries),
        ("rollout_n", arm.rollouts),
        ("extra_sampling_size", arm.extra),
        ("window_size", arm.window),
        ("variant", arm.variant),
        ("own_arguments", _array(arm.settings) if arm.settings else None),
        ("model", pair.model),
        ("data", pair.data),
    ]
    return [f"{name}={value}" for name, value in settings if value is not None]


def _array(texts: tuple[str, ...]) -> str:
    """For bash: in one line if it fits the page."""
    quoted = [shlex.quote(text) for text in texts]
    line = f"({' '.join(quoted)})"
    return line if len(line) <= 100 else "\n".join(["(", *(f"    {text}" for text in quoted), ")"])


def _comment(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 120, initial_indent="# ", subsequent_indent="#   ")


def _title(study: Study, arm: Arm, pair: Pair) -> str:
    where = f"{study.models[pair.model]['title']} on {study.data[pair.data]['title']}"
    if arm.name == study.base_line:
        return f"The base line, {where}: {arm.queries} queries a step, one rollout each, the 0/1 reward as the signal."
    rollouts = f"{arm.rollouts} rollout{'s' if arm.rollouts > 1 else ''}"
    queries = f"{arm.queries} {'query' if arm.queries == 1 else 'queries'}"
    return f"{estimators()[arm.estimator].title}, {queries} x {rollouts} a step: {where}."


def _changes(study: Study, arm: Arm, pair: Pair) -> list[str]:
    """What the arm changes: a variant against the arm without it, if there is one, any other arm against the base line."""
    against = arm.named_by_its_settings.removesuffix(f"_{arm.variant}")
    if arm.variant and against in study.arms:
        return [f"Against {script_name(against, pair.name)}: {arm.changes or ' '.join(arm.settings)}."]
    base = study.arms[study.base_line]
    changes = []
    if arm.estimator != base.estimator:
        changes.append(_signal(arm))
    if arm.queries != base.queries:
        changes.append(f"{arm.queries} queries instead of {base.queries}")
    if arm.rollouts != base.rollouts:
        changes.append(f"{arm.rollouts} rollouts per query instead of {base.rollouts}")
        if arm.estimator == base.estimator:
            changes.append(f"so {_signal(arm)}")
    if arm.variant:
        changes.append(arm.changes or " ".join(arm.settings))
    return [f"Against {script_name(base.name, pair.name)}: {', '.join(changes)}."] if changes else []


def _signal(arm: Arm) -> str:
    signal = estimators()[arm.estimator].signal
    return signal.format(extra=arm.extra, window=arm.window) if signal else f"the estimator {arm.estimator}"


def _takes(study: Study, arm: Arm, pair: Pair, folder: Path) -> str:
    """Hours by plan where the machine has a data sheet; a CPU's are measured, and the README has them."""
    machine = study.machines[pair.machine]
    if "bandwidth_gb_s" not in machine:
        return f"Takes, on {machine['title']}: see README.md."
    config = _base_line_config(folder, study.arms[study.base_line], pair)
    size = ModelSize.of(study.models[pair.model])
    work = workload(config, study.data[pair.data], steps=100)
    work = replace(work, queries=arm.queries, rollouts=arm.rollouts, extra=arm.extra or 0)
    # The base line's share of the memory: arms of 512 queries and more have a larger one, and are no slower for it.
    found = memory(size, config, machine["memory_gib"], machine["reserve_gib"])
    at_once = max(1, min(found.at_once, config.actor_rollout_ref.rollout.max_num_seqs))
    hours = reckoned_hours(size, work, at_once, machine)
    return (
        f"Takes, on {machine['title']}: about {hours.generate + hours.train:.2g} h per 100 steps if every response is as long "
        f"as it may be, evaluation apart (reckoned from its data sheet x {machine['efficiency']:g}, not measured: see "
        f"`python Running-Bash/design.py plan --pair {pair.name}`)."
    )


@cache
def _base_line_config(folder: Path, base_line: Arm, pair: Pair) -> DictConfig:
    return compose(*arguments(base_line, pair, folder))


def arguments(arm: Arm, pair: Pair, folder: Path = BASH) -> tuple[str, list[str]]:
    """(algorithm, overrides) of an arm's script on a pair, whether the script is there or not."""
    with TemporaryDirectory() as scratch:
        draft = Path(scratch) / script_name(arm.name, pair.name)
        draft.write_text("\n".join([*_body(arm, pair, shlex.quote(f"{folder.resolve()}/common.sh")), ""]))
        algorithm, overrides, own = print_args(draft.name, folder=draft.parent)
    return algorithm, [*overrides, *own]


def plot_text(factor: str) -> str:
    """The script that draws a factor's figures."""
    return f'''"""Draws the factor "{factor}" of Running-Bash/study.yaml; --help says more."""

# {PLOT_MARK}
import sys

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["{factor}"]))
'''


def _declared(study: Study, folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file that the design asks for, with its text. The plot scripts lie beside the results, the page among the docs."""
    for name, (arm, pair) in study.scripts.items():
        yield folder / name, text(study, arm, pair, folder)
    for factor in study.factors:
        yield _plots(folder) / f"plot_{factor}.py", plot_text(factor)
    page = folder.parent / "docs" / "factors.md"
    if page.is_file():
        yield page, factors_page.with_table(page.read_text(), study)


def _plots(folder: Path) -> Path:
    return folder.parent / RESULT_DIR.parent.name


def drift(study: Study, folder: Path) -> dict[str, str]:
    """File name: what is wrong (missing, differs, not declared), for the scripts of `folder` against the design."""
    return {path.name: what for path, what, _ in _drift(study, folder)}


def _drift(study: Study, folder: Path) -> list[tuple[Path, str, str]]:
    """(file, what is wrong with it, its declared text), for those that are not as declared."""
    wanted, found = dict(_declared(study, folder)), []
    for path, declared in wanted.items():
        if not path.is_file():
            found.append((path, "missing", declared))
        elif path.read_text() != declared:
            found.append((path, "differs", declared))
    for path in (*folder.glob("run_*.sh"), *_plots(folder).glob("plot_*.py")):
        if path not in wanted and (MARK if path.suffix == ".sh" else PLOT_MARK) in path.read_text():
            found.append((path, "not declared", ""))
    return found


def write(study: Study, folder: Path) -> dict[str, str]:
    """Writes what differs, removes what is ours and no longer declared; returns what was done (as `drift`)."""
    return _write(_drift(study, folder))


def write_missing(study: Study, folder: Path) -> dict[str, str]:
    """Writes what is declared and not there, and the page of the factors; leaves alone scripts that a user changed."""
    return _write([one for one in _drift(study, folder) if one[1] == "missing" or one[0].suffix == ".md"])


def _write(changed: list[tuple[Path, str, str]]) -> dict[str, str]:
    for path, what, declared in changed:
        if what == "not declared":
            path.unlink()
            continue
        write_atomic(path, declared)
        path.chmod(0o755 if path.suffix == ".sh" else 0o644)
    return {path.name: what for path, what, _ in changed}
