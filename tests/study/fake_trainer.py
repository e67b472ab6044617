"""Stands in for `bash run_X.sh overrides`: the files, lock and exit statuses of the trainer, without training.

Each step's line depends on run and step alone, so that a run that was cut and one that was not end in the same file.
With FAKE_ANSWERS='{"<arm>": chance, ...}' a run ends with an evaluation, each of 400 x 4 answers right with that chance.
What happens is noted in calls.log. FAKE_FAIL="run:n" fails that run n times, FAKE_SECONDS is how long a step takes;
with FAKE_TOGETHER=n none is taken before n runs have started, however busy the machine is.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    script, *overrides = sys.argv[1:]
    settings = dict(text.split("=", 1) for text in overrides)
    folder = Path(settings["run.result_dir"])
    run = f"{Path(script).stem.removeprefix('run_')}_seed{settings['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{run}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"error: the run {run} is going on in another process: wait for it, or stop it")
            return 2
        return train(folder, run, int(settings["trainer.total_training_steps"]))


def train(folder: Path, run: str, steps: int) -> int:
    jsonl = folder / f"{run}.jsonl"
    lines = [line for line in (jsonl.read_text().splitlines() if jsonl.is_file() else []) if line.endswith("}")]
    jsonl.write_text("".join(f"{line}\n" for line in lines))
    note(folder, "start", run, len(lines))
    describe(folder, run, "running")
    wait_for_others(folder)
    for step in range(len(lines) + 1, steps + 1):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        value = int(hashlib.sha256(f"{run}/{step}".encode()).hexdigest()[:8], 16) / 2**32
        with open(jsonl, "a") as file:
            file.write(json.dumps({"step": step, "reward": value, **evaluation(folder, run, step, steps)}) + "\n")
        note(folder, "step", run, step)
        if fails(folder, run):
            describe(folder, run, "failed", reason="the disk is full")
            return 1
    describe(folder, run, "finished")
    note(folder, "end", run, steps)
    return 0


def evaluation(folder: Path, run: str, step: int, steps: int) -> dict[str, float]:
    chances = json.loads(os.environ.get("FAKE_ANSWERS", "{}"))
    arm = run.partition("_tiny_arith")[0]
    if arm not in chances or step < steps:
        return {}
    import numpy as np
    from study_helpers import write_answers

    rng = np.random.default_rng(int(hashlib.sha256(run.encode()).hexdigest()[:8], 16))
    right = rng.random((400, 4)) < chances[arm] + 0.005 * rng.standard_normal()
    write_answers(folder / run, step, right)
    return {"eval/test/pass@1": float(right[:, 0].mean())}


def wait_for_others(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while starts(folder) < int(os.environ.get("FAKE_TOGETHER", "0")) and time.monotonic() < deadline:
        time.sleep(0.01)


def fails(folder: Path, run: str) -> bool:
    wanted, _, times = os.environ.get("FAKE_FAIL", "").partition(":")
    return wanted == run and starts(folder, run) <= int(times)


def starts(folder: Path, run: str = "") -> int:
    """How often the run, or any run, was started."""
    calls = [line.split() for line in (folder / "calls.log").read_text().splitlines()]
    return sum(event == "start" and name == (run or name) for event, name, *_ in calls)


def describe(folder: Path, run: str, status: str, **more: str) -> None:
    (folder / run).mkdir(exist_ok=True)
    (folder / run / "run.json").write_text(json.dumps({"run": run, "status": status, **more}))


def note(folder: Path, event: str, run: str, step: int) -> None:
    with open(folder / "calls.log", "a") as file:
        file.write(f"{event} {run} {step} {os.getpid()}\n")


if __name__ == "__main__":
    sys.exit(main())
