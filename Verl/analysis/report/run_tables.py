"""What the runs of a study cost, how fast they learnt, whether they were healthy, and how they were made: tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from Verl.analysis import stats
from Verl.analysis.runs.configs import holds_in
from Verl.analysis.runs.packed import read_text
from Verl.analysis.runs.run_file import TEST, listed
from Verl.analysis.runs.table import Runs, last_scores
from Verl.design.declared import declared
from Verl.trainer.ppo.conditions import reads_ratio

COSTS = {  # column of the ledger's table -> metric
    "queries": "ledger/total_queries",
    "responses generated": "ledger/total_responses_generated",
    "responses trained": "ledger/total_responses_trained",
    "gradient samples": "ledger/total_gradient_samples",
    "tokens generated": "ledger/total_tokens_generated",
    "tokens trained": "ledger/total_tokens_trained",
    "hours": "ledger/total_hours",
}
GAP_LIMIT = 0.02  # mean difference of token probabilities, rollout against trainer; our limit: fp32 on a CPU shows 1e-7
KL_LIMIT = 1e-3  # of one update per round: against the trainer's own log-probabilities, so 0 but for rounding


def arms_in_order(table: pd.DataFrame, pair: str) -> list[str]:
    """The arms with runs on a pair: in the design's order, then what it does not declare."""
    present = set(table.loc[table["pair"] == pair, "arm"])
    known = declared().pairs[pair].arms if pair in declared().pairs else tuple(declared().arms)
    return [arm for arm in known if arm in present] + sorted(present - set(known))


def final_scores(table: pd.DataFrame, pair: str, arm: str, metric: str = TEST) -> np.ndarray:
    """The metric at the arm's last evaluation, one value per seed that has it; empty without any."""
    last = last_scores(table[(table["pair"] == pair) & (table["arm"] == arm)], metric)
    return np.array([]) if last is None else last[1]


def final_score(table: pd.DataFrame, pair: str, arm: str, metric: str = TEST) -> float:
    """Their mean over seeds, NaN without any."""
    values = final_scores(table, pair, arm, metric)
    return float(values.mean()) if values.size else math.nan


class Cost(NamedTuple):
    """What an arm spent per run, mean over its seeds; NaN where it is not logged. ``tokens``: times the base line's."""

    arm: str
    seeds: int
    steps: int
    spent: dict[str, float]
    tokens: float
    final: float


def costs(table: pd.DataFrame, pair: str) -> list[Cost]:
    """A row per arm of a pair, at the last step of each run."""
    found = []
    for arm in arms_in_order(table, pair):
        rows = table[(table["pair"] == pair) & (table["arm"] == arm)]
        last = rows.sort_values("step").groupby("seed").last()  # of every column the last value that is there
        spent = {name: float(last[key].mean()) if key in last else np.nan for name, key in COSTS.items()}
        steps = int(rows["step"].max())
        found.append(Cost(arm, len(last), steps, spent, np.nan, final_score(table, pair, arm)))
    base = next((one.spent["tokens generated"] for one in found if one.arm == declared().base_line), np.nan)
    return [one._replace(tokens=one.spent["tokens generated"] / base if base else np.nan) for one in found]


class Speed(NamedTuple):
    """How fast an arm learns: mean height of the test curve, and the step at which it reaches the threshold.

    ``difference``: of the mean height to the base line's over the same seeds; None where there are not two of them.
    ``steps``: median over seeds, infinite where more than half never get there.
    """

    arm: str
    seeds: int
    height: stats.Interval | None
    difference: stats.Difference | None
    steps: float
    reached: int


@dataclass(frozen=True)
class Speeds:
    """The learning speeds on one pair; ``notes`` say over which steps, to which threshold, and what is left out."""

    rows: tuple[Speed, ...]
    notes: tuple[str, ...]


def _test_curves(table: pd.DataFrame, pair: str) -> dict[str, dict[int, pd.Series]]:
    """Arm -> seed -> test Pass@1 by step."""
    rows = table[table["pair"] == pair]
    if TEST not in rows:
        return {}
    rows = rows[np.isfinite(rows[TEST].astype(float))]
    curves: dict[str, dict[int, pd.Series]] = {}
    for (arm, seed), group in rows.groupby(["arm", "seed"]):
        curves.setdefault(str(arm), {})[int(seed)] = group.set_index("step")[TEST].astype(float).sort_index()
    return curves


def speeds(table: pd.DataFrame, pair: str) -> Speeds | None:
    """A row per arm of a pair; None where the base line has no curve to set end and threshold by."""
    curves = _test_curves(table, pair)
    base = curves.get(declared().base_line, {})
    if not base:
        return None
    end = max(int(curve.index[-1]) for curve in base.values())
    base = {seed: curve for seed, curve in base.items() if curve.index[-1] >= end and len(curve) > 1}
    if not base or end == 0:
        return None
    start, last = (float(np.mean([curve.iloc[i] for curve in base.values()])) for i in (0, -1))
    threshold = (start + last) / 2.0
    heights, reaching, short = {}, {}, []
    for arm in arms_in_order(table, pair):
        for seed, curve in curves.get(arm, {}).items():
            curve = curve[curve.index <= end]
            if len(curve) < 2 or curve.index[-1] < end or curve.index[0] > 0:
                short.append(f"{arm} seed {seed}")
                continue
            heights.setdefault(arm, {})[seed] = stats.area_under_curve(curve.index, curve)
            reaching.setdefault(arm, []).append(stats.steps_to_threshold(curve.index, curve, threshold))
    rows = [_speed(arm, of_arm, reaching[arm], heights.get(declared().base_line, {})) for arm, of_arm in heights.items()]
    notes = [
        f"Test Pass@1 from step 0 to step {end}, the base line's last; threshold {threshold:.3f}, half of its gain."
    ]
    if short:
        notes.append(f"Left out, because not evaluated from step 0 to step {end}: {listed(short)}.")
    return Speeds(tuple(rows), tuple(notes))


def _speed(arm: str, heights: dict[int, float], reaching: Sequence[float], base: dict[int, float]) -> Speed:
    values = list(heights.values())
    height = stats.seed_interval(values) if len(values) > 1 else stats.Interval(values[0], np.nan, np.nan)
    common = sorted(heights.keys() & base.keys()) if arm != declared().base_line else []
    difference = (
        stats.paired_seeds([heights[s] for s in common], [base[s] for s in common]) if len(common) > 1 else None
    )
    median = float(
        np.quantile(reaching, 0.5, method="higher")
    )  # of an even number the later, so that it can be infinite
    return Speed(arm, len(values), height, difference, median, int(np.isfinite(reaching).sum()))


class Health(NamedTuple):
    """The checks of one run; NaN where it does not log them. ``flags``: what is wrong, in words."""

    run: str
    status: str
    steps: int
    gap_mean: float
    gap_max: float
    first_kl: float
    failures: float
    failed_share: float  # of the responses drawn for training
    broken: int
    grad_max: float
    reference_kl: float
    flags: tuple[str, ...]


def _value(rows: pd.DataFrame, key: str, how) -> float:
    values = rows[key].dropna().to_numpy(dtype=float) if key in rows else np.array([])
    return float(how(values)) if values.size else np.nan


def health(runs: Runs, result_dir: Path) -> list[Health]:
    """A row per run, in the table's order. ``result_dir``: has the runs' config.yaml."""
    found = []
    for run, rows in runs.table.groupby("run", sort=False):
        failures = [key for key in rows if re.fullmatch(r"reward/(failures|timeouts)|eval/\w+/failures", str(key))]
        one = Health(
            run=str(run),
            status=str(rows["status"].iloc[0]),
            steps=int(rows["step"].max()),
            gap_mean=_value(rows, "training/rollout_probs_diff_mean", np.mean),
            gap_max=_value(rows, "training/rollout_probs_diff_max", np.max),
            first_kl=_value(rows[rows["step"] > 0], "actor/ppo_kl", lambda values: values[0]),
            failures=float(np.nansum(rows[failures].to_numpy(dtype=float))) if failures else np.nan,
            failed_share=_failed_share(rows),
            broken=runs.broken.get(str(run), 0),
            grad_max=_value(rows, "actor/grad_norm", np.max),
            reference_kl=_value(rows, "actor/kl_loss", lambda values: values[-1]),
            flags=(),
        )
        if abs(one.first_kl) > KL_LIMIT and holds_in(result_dir / str(run) / "config.yaml", reads_ratio):
            one = one._replace(first_kl=np.nan)  # a mean over updates, of which only the first starts at 0
        found.append(one._replace(flags=tuple(_flags(one))))
    return found


def _failed_share(rows: pd.DataFrame) -> float:
    """The share of a run's training responses whose scoring failed or timed out; NaN where it is not logged."""
    failed = [key for key in ("reward/failures", "reward/timeouts") if key in rows]
    drawn = _value(rows, "ledger/total_responses_generated", np.max)
    return float(np.nansum(rows[failed].to_numpy(dtype=float))) / drawn if failed and drawn > 0 else np.nan


def _flags(one: Health) -> Iterable[str]:
    if one.status not in ("finished", "unknown"):
        yield one.status
    if one.gap_mean > GAP_LIMIT:
        yield f"log-prob gap above {GAP_LIMIT:g}"
    if abs(one.first_kl) > KL_LIMIT:
        yield "first-step ppo_kl is not 0"
    if one.failures > 0:
        share = f" ({one.failed_share:.2%} of the training responses)" if one.failed_share > 0 else ""
        yield f"{one.failures:.0f} answers could not be scored{share}"
    if one.broken:
        yield f"{one.broken} values NaN or infinite"


@dataclass(frozen=True)
class Provenance:
    """How the runs were made. Values are (what, runs); ``recorded``: how many runs have a run.json that says so."""

    commits: list[tuple[str, int]]
    machines: list[tuple[str, int]]
    versions: list[tuple[str, str]]
    commands: list[tuple[str, str]]
    recorded: int


def _records(result_dir: Path, names: Iterable[str]) -> dict[str, dict]:
    records = {}
    for name in names:
        try:
            record = json.loads(read_text(result_dir / name / "run.json"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and "command" in record:
            records[name] = record
    return records


def _machine(host: dict) -> str:
    return f"{host.get('processor', 'unknown processor')}, {host.get('cpus', '?')} CPUs, {host.get('system', '')}"


def _counted(values: Iterable[str]) -> list[tuple[str, int]]:
    values = list(values)
    return sorted(((value, values.count(value)) for value in set(values)), key=lambda item: (-item[1], item[0]))


def provenance(result_dir: Path, names: Sequence[str]) -> Provenance:
    """Commits, machines, versions and commands of the runs; commands that differ in the seed alone are one."""
    records = _records(result_dir, names)
    packages: dict[str, list[str]] = {}
    seeds: dict[str, list[str]] = {}
    for record in records.values():
        for package, version in (record.get("versions") or {}).items():
            packages.setdefault(package, []).append(str(version))
        seeds.setdefault(re.sub(r"\bseed=\d+", "seed=K", str(record["command"])), []).append(str(record.get("seed")))
    versions = [
        (
            package,
            ", ".join(f"{value} ({count} runs)" for value, count in counted) if len(counted) > 1 else counted[0][0],
        )
        for package, values in packages.items()
        if (counted := _counted(values))
    ]
    return Provenance(
        _counted(str(record.get("commit", "unknown")) for record in records.values()),
        _counted(_machine(record.get("host") or {}) for record in records.values()),
        versions,
        [
            (command, ", ".join(sorted(set(of_command), key=lambda s: (len(s), s))))
            for command, of_command in seeds.items()
        ],
        len(records),
    )
