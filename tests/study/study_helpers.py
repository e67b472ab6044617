"""Runs of tiny_arith for the fake trainer, what it noted, and waiting for processes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.study.jobs import Job


def job(arm: str, seed: int = 0, steps: int = 2, result_dir: Path | None = None, **more) -> Job:
    """A run of an arm of tiny_arith."""
    run = f"{arm}_tiny_arith_seed{seed}"
    overrides = [f"seed={seed}", f"trainer.total_training_steps={steps}", f"run.result_dir={result_dir}"]
    return Job(run, arm, seed, f"run_{arm}_tiny_arith.sh", overrides, "hash", steps, work=float(steps), **more)


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


def write_final_answers(result_dir: Path, arm: str, seed: int, right: np.ndarray, step: int = 2) -> None:
    """The log and the last evaluation of a finished run of tiny_arith. ``right``: questions x samples of 0/1."""
    run = f"{arm}_tiny_arith_seed{seed}"
    write_answers(result_dir / run, step, right)
    lines = [{"step": 0, "eval/test/pass@1": 0.5}, {"step": step, "eval/test/pass@1": float(right[:, 0].mean())}]
    (result_dir / f"{run}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {"arm": arm, "model": "tiny", "data": "arith", "pair": "tiny_arith", "seed": seed, "status": "finished"}
    path = result_dir / run / "run.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**record, "config_hash": "hash", **known}))


def write_answers(run_dir: Path, step: int, right: np.ndarray) -> None:
    """The file of an evaluation. ``right``: questions x samples of 0/1."""
    (run_dir / "evaluations").mkdir(parents=True, exist_ok=True)
    question, sample = np.indices(right.shape)
    table = {"index": question.ravel(), "sample": sample.ravel(), "strict": right.ravel().astype(float)}
    pd.DataFrame({"split": "test", "data_source": "sums", **table}).to_parquet(
        run_dir / "evaluations" / f"step_{step:06d}.parquet"
    )
