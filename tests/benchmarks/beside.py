"""What a CPU run costs alone and beside other work, under one environment and another, in turn.

    python -m tests.benchmarks.beside                          alone, then beside a second run: as it is, and as it was
    python -m tests.benchmarks.beside --beside burn --load 2   beside two processes that only compute
    python -m tests.benchmarks.beside --with OMP_WAIT_POLICY=passive --with GOMP_SPINCOUNT=10000,RAY_worker_niceness=0

Every round carries out one run per environment, so that a change of the machine's own speed meets all of them. A line per
environment: seconds a step (median over the steps of all rounds, after the first two of each run), and whether the metrics
are the same bytes. `alone` is worth something only where nothing else goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from Verl.trainer.run_log import TIMING_PREFIXES

ROOT = Path(__file__).resolve().parents[2]
AS_IT_WAS = "OMP_WAIT_POLICY=,GOMP_SPINCOUNT=,RAY_worker_niceness=15"
BURN = "while True: pass"


def start(script: str, folder: str, steps: int, setting: str, overrides: list[str]) -> subprocess.Popen:
    """A run with results in `folder`; `setting` is NAME=value,..., where an empty value takes a variable's place as unset."""
    given = dict(text.split("=", 1) for text in setting.split(",") if text)
    environment = {**os.environ, "BANDIT_VENV": os.environ.get("BANDIT_VENV", str(ROOT / ".venv")), **given}
    command = ["bash", str(ROOT / "Running-Bash" / script), f"run.result_dir={folder}", f"run.figure_dir={folder}",
               f"trainer.total_training_steps={steps}", "trainer.test_freq=-1", "trainer.val_before_train=false",
               "evaluation.val_freq=-1", "trainer.save_freq=-1", *overrides]  # fmt: skip
    with open(Path(folder) / "console", "w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


@contextmanager
def other_work(kind: str, options: argparse.Namespace, setting: str, folder: str):
    """What goes on beside a run: nothing, a second run under the same setting, or processes that only compute."""
    if kind == "run":
        (Path(folder) / "other").mkdir()
        more = [*options.overrides, "seed=99"]
        others = [start(options.script, f"{folder}/other", 10 * options.steps, setting, more)]
    else:
        others = [subprocess.Popen([sys.executable, "-c", BURN], start_new_session=True)
                  for _ in range(options.load if kind == "burn" else 0)]  # fmt: skip
    try:
        yield
    finally:
        for one in others:
            one.terminate()
        for one in others:
            one.wait()


def measure(kind: str, options: argparse.Namespace, setting: str) -> tuple[list[float], str]:
    """Seconds of each step after the first two, and the metrics without timings."""
    with tempfile.TemporaryDirectory() as folder:
        with other_work(kind, options, setting, folder):
            status = start(options.script, folder, options.steps, setting, options.overrides).wait()
        if status:
            sys.exit((Path(folder) / "console").read_text())
        records = [json.loads(line) for line in next(Path(folder).glob("*.jsonl")).read_text().splitlines()]
    seconds = [record["timing_s/step"] for record in records if record["step"] > 2]
    metrics = [{k: v for k, v in r.items() if not k.startswith((*TIMING_PREFIXES, "actor/perf/"))} for r in records]
    return seconds, json.dumps(metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", default="run_grpo_0032_8_tiny_arith.sh")
    parser.add_argument("--with", dest="settings", action="append", help="environment to compare: NAME=value,NAME=value")
    parser.add_argument("--beside", nargs="+", choices=("nothing", "run", "burn"), default=["nothing", "run"])
    parser.add_argument("--load", type=int, default=2, help="processes that only compute, for --beside burn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    settings = options.settings or ["", AS_IT_WAS]
    found: dict[tuple[str, str], list[float]] = {}
    bytes_seen: dict[str, set[str]] = {setting: set() for setting in settings}
    for _ in range(options.rounds):
        for kind in options.beside:
            for setting in settings:
                seconds, metrics = measure(kind, options, setting)
                found.setdefault((kind, setting), []).extend(seconds)
                bytes_seen[setting].add(metrics)
                sys.stderr.write(f"{kind:8} {setting or 'as it is':50} {statistics.median(seconds):.3f}\n")
    load = f"load {os.getloadavg()[0]:.1f}"
    sys.stdout.write(f"{options.script}, {os.cpu_count()} cores, {load}, {options.rounds} rounds of {options.steps} steps\n")
    for (kind, setting), seconds in found.items():
        sys.stdout.write(
            f"beside {kind:8} {setting or 'as it is':50} {statistics.median(seconds):.3f} s a step "
            f"({min(seconds):.3f} to {max(seconds):.3f})\n"
        )
    same = len(set.union(*bytes_seen.values())) == 1
    sys.stdout.write(f"metrics: {'the same bytes everywhere' if same else 'NOT the same everywhere'}\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
