"""A study declared before its runs are seen: ``design.py freeze`` writes it down, the report holds the runs against it.

The file holds the question, the arms with their configurations, metric, margin, seeds or stopping rule, and the versions of
analysis and code, under a hash over all of it. Runs that were there already are named: what was seen is not predicted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.provenance import commit
from Verl.trainer import identity

NAME = "frozen.yaml"
METRIC = "eval/test/pass@1"


@dataclass(frozen=True)
class Frozen:
    """A declared study.

    Args:
        arms: arm -> hash of its configuration, the reference among them. steps: at which the arms are compared.
        seeds: of every arm, or, with max_seeds, those of the first look. max_seeds: of the stopping rule, else None.
        analysis, code: hashes over the sources of the statistics and of what decides a run's numbers.
        seen: runs of these arms that were there when it was written.
    """

    study: str
    question: str
    pair: str
    reference: str
    arms: dict[str, str]
    steps: int
    seeds: tuple[int, ...]
    max_seeds: int | None
    margin: float
    alpha: float
    metric: str
    analysis: str
    code: str
    commit: str
    frozen_at: str
    seen: tuple[str, ...]
    intact: bool = True  # whether the file's hash is that of its contents

    @property
    def compared(self) -> list[str]:
        """The arms without the reference."""
        return [arm for arm in self.arms if arm != self.reference]

    def contents(self) -> dict[str, Any]:
        found = asdict(self)
        del found["intact"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.contents(), sort_keys=True).encode()).hexdigest()


def analysis_version() -> str:
    """A hash over the sources that make verdicts of evaluations."""
    package = REPO_ROOT / "Verl"
    sources = [*(package / "statistics").glob("*.py"), *(package / "analysis/verdicts").glob("*.py")]
    return identity.sha256_of(sources, below=package)


def declare(result_dir: Path, **given: Any) -> Frozen:
    """The declaration, with the versions of now and the runs that are there already.

    Args:
        given: the fields that a user decides on.
    """
    pair = given["pair"]
    seen = sorted(path.stem for arm in given["arms"] for path in result_dir.glob(f"{arm}_{pair}_seed*.jsonl"))
    return Frozen(
        **given, metric=METRIC, analysis=analysis_version(), code=identity.code(), commit=commit(),
        frozen_at=datetime.now(UTC).isoformat(timespec="seconds"), seen=tuple(seen),
    )  # fmt: skip


def write(frozen: Frozen, path: Path) -> None:
    """Writes the file. Raises UserError if there is one already: a declaration is not changed."""
    if path.exists():
        raise UserError(f"{path} is there already, and a declaration is not changed: choose another --name or --out")
    text = yaml.safe_dump({**frozen.contents(), "hash": frozen.hash}, sort_keys=False, width=120)
    write_atomic(path, "# Written by `design.py freeze` before the study; the report names every deviation from it.\n" + text)


def read(path: Path) -> Frozen:
    """Reads a declaration; ``intact`` says whether it is as it was written. Raises UserError if it is none."""
    try:
        found = yaml.safe_load(path.read_text())
        stated = found.pop("hash")
        frozen = Frozen(**{**found, "seeds": tuple(found["seeds"]), "seen": tuple(found["seen"])})
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} can't be read as a declared study ({reason}): `design.py freeze` writes one") from None
    return Frozen(**{**asdict(frozen), "seeds": frozen.seeds, "seen": frozen.seen, "intact": stated == frozen.hash})


def beside(result_dir: Path) -> Path | None:
    """The declaration in a result folder, or beside it."""
    return next((path for path in (result_dir / NAME, result_dir.parent / NAME) if path.is_file()), None)


@dataclass(frozen=True)
class Run:
    """What is needed of a run to hold it against a declaration. ``last``: its last evaluated step."""

    arm: str
    seed: int
    config_hash: str | None
    code: str | None
    last: int


def deviations(frozen: Frozen, runs: Sequence[Run], margin: float) -> list[str]:
    """Every way in which runs and analysis differ from what was declared, in sentences."""
    found = []
    if not frozen.intact:
        found.append("the file was changed after it was written: its hash is not that of its contents")
    if frozen.seen:
        found.append(f"runs that were there when it was declared: {', '.join(frozen.seen)}")
    by_arm: dict[str, list[Run]] = {arm: [run for run in runs if run.arm == arm] for arm in frozen.arms}
    for arm, of_arm in by_arm.items():
        if not of_arm:
            found.append(f"no run of {arm}")
            continue
        found += _of_arm(frozen, arm, of_arm)
    others = sorted({run.arm for run in runs} - frozen.arms.keys())
    if others:
        found.append(f"arms that were not declared: {', '.join(others)}")
    codes = {run.code for of_arm in by_arm.values() for run in of_arm if run.code not in (None, frozen.code)}
    if codes:
        found.append(f"{len(codes)} version(s) of the training code other than the declared one made runs")
    if margin != frozen.margin:
        found.append(f"the page's margin is {margin:g}, {frozen.margin:g} was declared (the declared verdicts keep theirs)")
    if analysis_version() != frozen.analysis:
        found.append("the analysis is another version than the declared one")
    return found


def _of_arm(frozen: Frozen, arm: str, runs: Sequence[Run]) -> list[str]:
    found, seeds = [], {run.seed for run in runs}
    most = frozen.max_seeds or len(frozen.seeds)
    allowed = {*frozen.seeds, *range(max(frozen.seeds) + 1, max(frozen.seeds) + 1 + most - len(frozen.seeds))}
    missing, further = sorted(set(frozen.seeds) - seeds), sorted(seeds - allowed)
    if missing:
        found.append(f"{arm} lacks seed {', '.join(map(str, missing))}")
    if further:
        found.append(f"{arm} has seeds that were not declared: {', '.join(map(str, further))}")
    if any(run.config_hash not in (None, frozen.arms[arm]) for run in runs):
        found.append(f"{arm} was run with another configuration")
    steps = sorted({run.last for run in runs} - {frozen.steps})
    if steps:
        found.append(f"{arm} was last evaluated at step {', '.join(map(str, steps))}, not {frozen.steps}")
    return found


def line(frozen: Frozen) -> str:
    """The declaration in a sentence."""
    seeds = f"seeds {', '.join(map(str, frozen.seeds))}"
    if frozen.max_seeds:
        seeds += f", then one at a time until decided, {frozen.max_seeds} at most"
    return (
        f"{frozen.study}: {len(frozen.compared)} arms against {frozen.reference} on {frozen.pair}, {frozen.metric} at step "
        f"{frozen.steps}, margin {frozen.margin:g}, alpha {frozen.alpha:g}, {seeds}; hash {frozen.hash[:12]}"
    )

