"""Runs the contenders of a row in turn, round after round, and keeps what each left in results/speed_<row>.json.

What is there is not run again, so that a row can be measured in pieces; `again` drops a contender's results first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.benchmarks import default_run
from tests.benchmarks.speed import ours
from tests.benchmarks.speed.watch import Disturbed, watch
from tests.benchmarks.speed.work import CACHE, ROOT, WORKS, prepare
from Verl import provenance

RESULTS = ROOT / "tests" / "benchmarks" / "results"
ROWS = (*WORKS, "default")
CONTENDERS = ("loop", "ours", "before", "trl", "ours_overhead", "before_overhead", "loop_overhead")


def results_file(row: str) -> Path:
    return RESULTS / f"speed_{row}.json"


@dataclass(frozen=True)
class Plan:
    """How rows are measured: contenders, rounds and steps; nothing starts once the clock (`time.monotonic`) reaches `end`."""

    contenders: list[str]
    rounds: int
    steps: int
    end: float
    calm: float = 1.0
    before: str | None = None
    trl: Path | None = None

    def wants(self, row: str, contender: str) -> bool:
        if row == "default" and contender not in ("ours", "before"):
            return False
        return not (contender.startswith("before") and self.before is None) and not (
            contender == "trl" and self.trl is None
        )


def run_row(row: str, plan: Plan) -> None:
    """Fills in what is missing of a row; a run that others disturb is left for the next time."""
    kept = load(row)
    for number in range(plan.rounds):
        for contender in plan.contenders:
            done = any(run["contender"] == contender and run["round"] == number for run in kept["runs"])
            if done or not plan.wants(row, contender):
                continue
            if time.monotonic() >= plan.end:
                say(f"{row}: the minutes are over; the same command goes on")
                return
            say(f"{row}: round {number}, {contender}")
            try:
                result = _one(row, contender, plan)
            except Disturbed as error:
                say(f"{row}: {contender} is left for the next time: {error}")
                continue
            kept["runs"].append({"contender": contender, "round": number, **result})
            save(row, kept)


def _one(row: str, contender: str, plan: Plan) -> dict:
    old = contender.startswith("before")
    root = export(plan.before) if old else ROOT
    if row == "default":
        measured = default_run.measure("run_grpo_0032_8_tiny_arith.sh", 0, [], root)
        return {"default": measured, "commit": plan.before if old else provenance.commit()}
    work = WORKS[row]
    if contender.endswith("_overhead"):
        work, contender = work.tiny(), contender.removesuffix("_overhead")
    if contender == "loop":
        return _child([sys.executable, "-m", "tests.benchmarks.speed.loop", work.to_json(), str(plan.steps)], plan.calm)
    if contender == "trl":
        work = work.for_trl()
        model, data, _ = prepare(work, rows=work.queries * (plan.steps + 1))
        peers = str(ROOT / "tests/benchmarks/speed/peers.py")
        command = [str(plan.trl), peers, work.to_json(), str(plan.steps), str(model), f"{data}/train.parquet"]
        return _child(command, plan.calm, path="")
    result = ours.measure(work, plan.steps, root, plan.calm)
    return result | ({"commit": plan.before} if old else {})


def _child(command: list[str], calm: float, path: str = str(ROOT)) -> dict:
    """A contender that prints one line of json."""
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    watched = watch(command, ROOT, environment, calm=calm)
    if watched.status:
        raise SystemExit(f"{' '.join(command[:3])} ended with status {watched.status}:\n{watched.tail()}")
    return json.loads(watched.stdout.splitlines()[-1]) | {"gigabytes": watched.gigabytes, "others": watched.others}


def export(commit: str) -> Path:
    """The product as it was at a commit, in a folder of its own with copies of the tiny model and its data."""
    folder = CACHE / f"before_{commit[:12]}"
    if not (folder / "whole").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
        for part in (".cache/models/tiny", "Dataset/arithmetic/data"):
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part)
        (folder / "whole").touch()
    for path in ROOT.glob("requirements*.txt"):  # both run with the packages of this checkout: nothing is installed
        shutil.copy(path, folder)
    return folder


def load(row: str) -> dict:
    path = results_file(row)
    if path.is_file():
        return json.loads(path.read_text())
    return {
        "row": row,
        "work": asdict(WORKS[row]) if row in WORKS else {"script": "run_grpo_0032_8_tiny_arith.sh"},
        "runs": [],
    }


def save(row: str, kept: dict) -> None:
    described = provenance.describe()
    kept["machine"] = described["host"] | {"gigabytes": round(psutil.virtual_memory().total / 1e9, 1)}
    kept["versions"] = described["versions"]
    RESULTS.mkdir(exist_ok=True)
    results_file(row).write_text(json.dumps(kept, indent=1) + "\n")


def forget(row: str, contenders: list[str], calm: float) -> None:
    """Drops what is kept of these contenders, and of runs during which others took more than `calm` of the cores."""
    kept = load(row)
    kept["runs"] = [
        run for run in kept["runs"] if run["contender"] not in contenders and run.get("others", 0.0) <= calm
    ]
    save(row, kept)


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


__all__ = ["CONTENDERS", "ROWS", "Plan", "export", "forget", "load", "run_row"]
