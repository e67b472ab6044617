"""What a script's run costs: start-up, seconds a step and where they go, memory of the process tree, health numbers.

    python tests/benchmarks/default_run.py [--script run_grpo_0032_8_tiny_arith.sh] [--seeds 0 1 2] [key=value ...]

Runs the script as a user would (nothing else should be going on), with results in a temporary folder, and prints a table.
Start-up is from the command to the end of the evaluation at step 0 and, apart, to the end of step 1; memory is the
proportional set size (pages shared by processes counted once), sampled twice a second. Set-up, model and data must be
there already: their time is not a run's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")


def tree_memory(process: psutil.Process) -> float:
    """Gigabytes of the process and everything below it, shared pages counted once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            with open(f"/proc/{one.pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration, psutil.NoSuchProcess):
            continue
    return total / 1e6


def measure(script: str, seed: int, overrides: list[str], root: Path = ROOT) -> dict[str, float]:
    """Runs once; the numbers of the table. `root` is the checkout whose script runs, with this one's packages."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["bash", str(root / "Running-Bash" / script), f"run.result_dir={folder}", f"run.figure_dir={folder}",
                   f"seed={seed}", *overrides]  # fmt: skip
        began = time.monotonic()
        packages = {"BANDIT_VENV": os.environ.get("BANDIT_VENV", str(ROOT / ".venv")), "PYTHONPATH": ""}
        process = subprocess.Popen(
            command, env={**os.environ, **packages}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        tree, peak, marks = psutil.Process(process.pid), 0.0, {}
        while process.poll() is None:
            peak = max(peak, tree_memory(tree))
            for jsonl in Path(folder).glob("*.jsonl"):
                lines = jsonl.read_text().count("\n")
                for count in (1, 2):
                    if lines >= count:
                        marks.setdefault(count, time.monotonic() - began)
            time.sleep(0.5)
        seconds = time.monotonic() - began
        if process.returncode:
            sys.exit(f"{script} ended with status {process.returncode}")
        records = [json.loads(line) for line in next(Path(folder).glob("*.jsonl")).read_text().splitlines()]
    steps = records[2:]  # the first step warms up
    row = {
        "whole run, s": seconds,
        "to the end of evaluation 0, s": marks[1],
        "to the end of step 1, s": marks[2],
        "a step, s (median)": statistics.median(r["timing_s/step"] for r in steps),
        "peak memory of the tree, GB": peak,
        "probability gap rollout/trainer (mean)": statistics.mean(r["training/rollout_probs_diff_mean"] for r in steps),
        "|ppo_kl| at step 1": abs(records[1]["actor/ppo_kl"]),
        "kl to the reference at step 1": records[1]["actor/kl_loss"],
        "test Pass@1, start": records[0].get("eval/test/pass@1", float("nan")),
        "test Pass@1, end": records[-1].get("eval/test/pass@1", float("nan")),
    }
    for phase in PHASES:
        row[f"  {phase}, s (median)"] = statistics.median(r[f"timing_s/{phase}"] for r in steps)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", default="run_grpo_0032_8_tiny_arith.sh")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    rows = [measure(options.script, seed, options.overrides) for seed in options.seeds]
    sys.stdout.write(f"{options.script} {' '.join(options.overrides)}, {psutil.cpu_count()} cores, seeds {options.seeds}\n")
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f"  ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
        sys.stdout.write(f"{name:42} {statistics.median(values):10.4g}{spread}\n")


if __name__ == "__main__":
    main()
