"""Runs of tiny_arith for the fake trainer, what it noted, and waiting for processes."""

import time
from collections.abc import Callable
from pathlib import Path

from Verl.study.jobs import Job


def job(cell: str, seed: int = 0, steps: int = 2, result_dir: Path | None = None, **more) -> Job:
    """A run of a cell of tiny_arith."""
    run = f"{cell}_tiny_arith_seed{seed}"
    overrides = [f"seed={seed}", f"trainer.total_training_steps={steps}", f"run.result_dir={result_dir}"]
    return Job(run, cell, seed, f"run_{cell}_tiny_arith.sh", overrides, "hash", steps, work=float(steps), **more)


def calls(result_dir: Path) -> list[list[str]]:
    """What the fake trainer noted: [event, run, step, pid] in order."""
    path = result_dir / "calls.log"
    return [line.split() for line in path.read_text().splitlines()] if path.is_file() else []


def started(result_dir: Path) -> list[str]:
    return [call[1] for call in calls(result_dir) if call[0] == "start"]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether a process runs; one that is over and only waits to be read is not alive."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
