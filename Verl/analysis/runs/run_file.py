"""Reads the file of one run: ours or verl's jsonl, or verl's console log; what it was, its metrics, its faults.

Nothing here stops on a bad file: each fault becomes a sentence that names the run, and what can be read is read.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from Verl.analysis.runs.packed import read_text
from Verl.trainer.naming import parse_arm
from Verl.trainer.ppo.estimators import size_of

IDENTITY = ("run", "pair", "arm", "model", "data", "seed", "status", "config_hash")
TEST = "eval/test/pass@1"
LEDGER = {  # budget axis -> column
    "queries": "ledger/total_queries",
    "responses": "ledger/total_responses_generated",
    "tokens": "ledger/total_tokens_generated",
    "gradient_samples": "ledger/total_gradient_samples",
    "hours": "ledger/total_hours",
}
_CONSOLE = re.compile(r"\bstep:(\d+) - (.*)")
_CONSOLE_VALUE = re.compile(r"^(?:np\.\w+\()?([-+]?(?:[0-9.]+(?:[eE][-+]?\d+)?|nan|inf))\)?$", re.IGNORECASE)
_VERL_NAMES = (  # verl's and the published package's metric names -> ours
    (re.compile(r"^val-core/.*/(?:acc|reward|score)/mean@1$"), TEST),
    (re.compile(r"^val/test_score/"), TEST),
    (re.compile(r"^critic/score/mean$"), "train/reward_mean"),
    (re.compile(r"^response_length/mean$"), "train/response_length_mean"),
)
_NO_NUMBER = ("nan", "inf", "-inf")  # how our trainer writes them: JSON has no such numbers
_LENGTH = "train/response_length_mean"


@dataclass
class RunFile:
    """One run: what it was (``identity``, keys IDENTITY), its metrics by step, and what is wrong with it."""

    name: str
    identity: dict
    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    broken: set[tuple[str, int]] = field(default_factory=set)  # (metric, step) that is NaN or infinite, of all metrics
    series: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))  # every metric by step
    reason: str | None = None  # why it ended, if it says so
    problems: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.problems.append(f"{self.name}: {sentence}")

    def add(self, step: int, metrics: dict[str, float], wanted: Callable[[str], bool]) -> None:
        """Merge one line; a step that stands twice with other values is what a resumed run leaves: the last counts."""
        row = self.rows.setdefault(step, {})
        for key, value in metrics.items():
            (self.broken.discard if math.isfinite(value) else self.broken.add)((key, step))
            self.series[key][step] = value
            if wanted(key):
                if key in row and row[key] != value and not math.isnan(value):
                    self.repeated.add(step)
                row[key] = value


def parse_name(name: str) -> dict | None:
    """Arm, model, data, pair and seed of ``<arm>_<model>_<data>[_seed<k>]``, seed None if absent; None if no such name.

    Model and data hold no underscore, the arm may: ``onerpo_0032_1_7_tiny_arith_seed2``.
    """
    seed = re.search(r"_seed(\d+)$", name)
    parts = (name[: seed.start()] if seed else name).rsplit("_", 2)
    if len(parts) < 3 or not all(parts):
        return None
    arm, model, data = parts
    return {"arm": arm, "model": model, "data": data, "pair": f"{model}_{data}", "seed": int(seed[1]) if seed else None}


def arm_numbers(arm: str) -> dict[str, int] | None:
    """Queries, trained and generated rollouts of one step from an arm's name, or None.

    ``onerpo_B_n_m`` generates n + m rollouts a query and trains on n.
    """
    parsed = parse_arm(arm)
    if parsed is None:
        return None
    size = size_of(parsed.estimator)
    extra = parsed.size or 0 if size is not None and size.drawn else 0
    trained = parsed.queries * parsed.rollouts
    return {"queries": parsed.queries, "trained": trained, "generated": trained + parsed.queries * extra}


def _identify(name: str, folder: Path) -> tuple[dict, str | None, list[str]]:
    """Identity of a run from its run.json, else from its name; why it ended, if run.json says so; what is wrong."""
    known, faults, reason = parse_name(name) or {}, [], None
    identity = dict.fromkeys(IDENTITY) | known | {"run": name, "status": "unknown"}
    path = folder / name / "run.json"
    try:
        recorded = json.loads(read_text(path))
        if not isinstance(recorded, dict):
            raise ValueError("not an object")
        for key in IDENTITY[1:]:
            if known.get(key) is not None and recorded.get(key) not in (None, known[key]):
                faults.append(f"run.json says {key} {recorded[key]!r}, the name says {known[key]!r}; run.json counts")
        if recorded.get("seed") is not None:
            recorded["seed"] = int(recorded["seed"])
        identity |= {key: recorded[key] for key in IDENTITY[1:] if recorded.get(key) is not None}
        reason = recorded.get("reason")
    except FileNotFoundError:
        faults.append("has no run.json; arm, pair and seed are taken from the name")
    except (OSError, ValueError, TypeError) as error:
        faults.append(f"run.json cannot be read ({error}); arm, pair and seed are taken from the name")
    if identity["arm"] is not None and identity["seed"] is None:
        identity["seed"] = 0
        faults.append("names no seed; taken as seed 0")
    return identity, reason, faults


def _read_jsonl(run: RunFile, path: Path, wanted: Callable[[str], bool]) -> None:
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            what = "the last line is cut off" if number == len(lines) else "is not a metrics object"
            run.note(f"line {number} skipped: {what}")
            continue
        # verl's own file logger nests the metrics under "data"
        metrics = entry["data"] if isinstance(entry.get("data"), dict) else entry
        row, odd = {}, []
        for key, value in metrics.items():
            if key == "step":
                continue
            if value is None or value in _NO_NUMBER:
                row[key] = math.nan if value is None else float(value)
            elif isinstance(value, (int, float)):
                row[key] = float(value)
            else:
                odd.append(key)
        if odd:
            run.note(f"line {number}: not a number and left out: {', '.join(sorted(odd))}")
        run.add(step, row, wanted)


def _read_console(run: RunFile, path: Path, wanted: Callable[[str], bool]) -> None:
    """verl's console lines, with whatever Ray puts before ``step:``; numpy 2 prints ``np.float64(0.5)``."""
    content = read_text(path)
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        match = _CONSOLE.search(line)
        if not match:
            continue
        row, items = {}, match.group(2).split(" - ")
        if number == len(lines) and not content.endswith("\n"):  # what is left of 0.45 may read 0.4
            items.pop()
            run.note(f"line {number}: the last line is cut off; its last value is left out")
        for item in items:
            key, _, text = item.strip().rpartition(":")
            value = _CONSOLE_VALUE.match(text)
            if not key or not value:
                continue
            row[next((ours for pattern, ours in _VERL_NAMES if pattern.match(key)), key)] = float(value.group(1))
        run.add(int(match.group(1)), row, wanted)


def _fill_ledger(run: RunFile) -> None:
    """Cumulative budgets for logs without our ledger, from the arm's numbers and the seconds per step."""
    steps = sorted(run.rows)
    for step in steps:  # nothing is spent before the first step
        if step == 0:
            for column in LEDGER.values():
                run.rows[0].setdefault(column, 0.0)
    trained = [step for step in steps if step > 0]
    numbers = arm_numbers(run.identity["arm"])
    if not trained or not numbers or any(LEDGER["queries"] in run.rows[step] for step in trained):
        return
    timed, measured = (all(key in run.rows[step] for step in trained) for key in ("timing_s/step", _LENGTH))
    seconds = tokens = 0.0
    for before, step in zip([0, *trained], trained):
        row, steps = run.rows[step], step - before  # a line that is missing counts as much as the next one
        row[LEDGER["queries"]] = float(step * numbers["queries"])
        row[LEDGER["responses"]] = float(step * numbers["generated"])
        row[LEDGER["gradient_samples"]] = float(step * numbers["trained"])
        if timed:
            seconds += steps * row["timing_s/step"]
            row[LEDGER["hours"]] = seconds / 3600.0
        if measured:  # extra responses are taken to be as long as the trained ones, whose mean length is logged
            tokens += steps * row[_LENGTH] * numbers["generated"]
            row[LEDGER["tokens"]] = tokens
    also = ", tokens with the mean length" if measured else ""
    run.note(
        f"logs no ledger; queries, responses and gradient samples (all trained responses) are worked out from the arm's "
        f"name{also}"
    )


def _faults_of_values(run: RunFile) -> None:
    if run.repeated:
        steps = listed(sorted(run.repeated))
        run.note(f"step {steps} stands more than once with other values (a resumed run); the last counts")
    bad: dict[str, list[int]] = defaultdict(list)
    for key, step in sorted(run.broken):
        bad[key].append(step)
    for key, steps in bad.items():
        run.note(f"{key} is NaN or infinite at {len(steps)} step(s), first at step {steps[0]}")
    if run.identity["status"] in ("failed", "interrupted", "running"):
        why = f" ({run.reason})" if run.reason else ""
        run.note(f"is {run.identity['status']}, its last step is {max(run.rows)}{why}")


def listed(values: Iterable, limit: int = 6) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:limit]) + (f" and {len(values) - limit} more" if len(values) > limit else "")


def read_run(path: Path, wanted: Callable[[str], bool] = lambda key: True) -> RunFile:
    """One run from its jsonl or log file; without rows, and with the reason among its problems, if it is of no use."""
    identity, reason, faults = _identify(path.stem, path.parent)
    run = RunFile(path.stem, identity, reason=reason)
    for fault in faults:
        run.note(fault)
    if identity["arm"] is None or identity["pair"] is None:
        run.note("left out: the name is not <arm>_<model>_<data>_seed<k> and no run.json says what it is")
        return run
    (_read_jsonl if path.suffix == ".jsonl" else _read_console)(run, path, wanted)
    if not run.rows:
        run.note("left out: holds no step")
        return run
    _fill_ledger(run)
    _faults_of_values(run)
    return run


def as_table(runs: Iterable[RunFile]) -> pd.DataFrame:
    """One row per run and step: the columns IDENTITY, ``step``, and every metric that any run has."""
    rows = [run.identity | {"step": step} | run.rows[step] for run in runs for step in sorted(run.rows)]
    if not rows:
        return pd.DataFrame(columns=[*IDENTITY, "step"])
    table = pd.DataFrame.from_records(rows)
    return table.sort_values(["pair", "arm", "seed", "step"], ignore_index=True)
