"""How many runs of a study this machine carries out in an hour: a process per run against hosts, in turn, in one table.

    python tests/benchmarks/study_throughput.py [--arms grpo_0032_1 grpo_0032_8] [--seeds 0 1 2] [--steps 40] [--jobs 1 2]

Both ways are `run_study.sh` as a user starts it, with `--no-host` and `--host`, on the same runs, one after the other, with
results in temporary folders; model and data must be there. Wall seconds are those of the whole study, from the command to
its end. Processor seconds are those of all its processes, read five times a second, to separate them from a machine
that is shared; the share of it that was free meanwhile stands beside them. Then what both ways wrote is compared: jsonl
without timings, every byte of samples and evaluations, and of the tensors in checkpoints.
About 14 minutes on two quiet cores; the table goes
to results/study_throughput.json and .md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
NOT_THE_SAME_TWICE = ("timing", "perf/", "ledger/total_hours", "actor/perf/")
WAYS = {"a process per run": "--no-host", "hosts": "--host"}


class Tree:
    """Processor seconds of a process and of all below it, also of those that are over."""

    def __init__(self, process: int):
        self._root, self._seconds = psutil.Process(process), {}

    def look(self) -> None:
        try:
            found = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        for one in found:
            try:
                times = one.cpu_times()
                self._seconds[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue

    @property
    def seconds(self) -> float:
        return sum(self._seconds.values())


def measure(way: str, jobs: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One study; what it cost."""
    command = [
        "bash", str(ROOT / "Running-Bash/run_study.sh"), WAYS[way], "--pair", options.pair, "--arms", *options.arms,
        "--seeds", *map(str, options.seeds), "--steps", str(options.steps), "--jobs", str(jobs), "--result", str(folder),
        "--", f"run.figure_dir={folder}/Figure", *options.overrides,
    ]  # fmt: skip
    environment = {**os.environ, "BANDIT_VENV": os.environ.get("BANDIT_VENV", str(ROOT / ".venv"))}
    began, busy = time.monotonic(), psutil.cpu_times()
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        tree = Tree(process.pid)
        while process.poll() is None:
            tree.look()
            time.sleep(0.2)
    wall, after = time.monotonic() - began, psutil.cpu_times()
    if process.returncode:
        sys.exit(f"the study ended with status {process.returncode}:\n{(folder / 'said').read_text()[-2000:]}")
    runs = sorted(path.stem for path in folder.glob("*.jsonl"))
    return {
        "way": way, "at a time": jobs, "runs": len(runs), "wall_s": round(wall, 1), "processor_s": round(tree.seconds, 1),
        "runs_an_hour": round(3600 * len(runs) / wall, 1),
        "processor_s_a_run": round(tree.seconds / len(runs), 1),
        "idle": round((after.idle - busy.idle) / (wall * psutil.cpu_count()), 2),
    }  # fmt: skip


def traces(folder: Path) -> dict[str, str]:
    """SHA-256 of what each run wrote, by file; of a jsonl without timings."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{k: v for k, v in line.items() if not k.startswith(NOT_THE_SAME_TWICE)} for line in lines]
        found[path.name] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
        for part in ("samples/*.parquet", "evaluations/*.parquet", "checkpoints/*/actor/[mo]*.pt"):
            for file in sorted((folder / path.stem).glob(part)):
                found[str(file.relative_to(folder))] = (
                    tensors(file) if file.suffix == ".pt" else hashlib.sha256(file.read_bytes()).hexdigest()
                )
    return found


def tensors(path: Path) -> str:
    """SHA-256 over what torch.save was given: names, and bytes of tensors. The file around them is not the same twice."""
    import torch

    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict | list | tuple):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                add(f"{name}/{key}", part)
            return
        value = value.to_local() if hasattr(value, "to_local") else value
        whole = torch.is_tensor(value)
        digest.update(name.encode() + (value.contiguous().numpy().tobytes() if whole else repr(value).encode()))

    add("", torch.load(path, weights_only=False))
    return digest.hexdigest()


def table(rows: list[dict[str, Any]], options: argparse.Namespace, compared: list[str]) -> str:
    lines = [
        f"{options.pair}, {', '.join(options.arms)}, seeds {' '.join(map(str, options.seeds))}, {options.steps} steps; "
        f"{psutil.cpu_count()} cores",
        "",
        "| runs at a time | way | runs an hour | wall s a run | processor s a run | idle share | against a process per "
        "run |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = next(one for one in rows if one["at a time"] == row["at a time"])
        lines.append(
            f"| {row['at a time']} | {row['way']} | {row['runs_an_hour']:.0f} | {row['wall_s'] / row['runs']:.1f} "
            f"| {row['processor_s_a_run']:.1f} | {row['idle']:.0%} | {row['runs_an_hour'] / base['runs_an_hour']:.2f} |"
        )
    return "\n".join([*lines, "", *compared]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", default="tiny_arith")
    parser.add_argument("--arms", nargs="+", default=["grpo_0032_1", "grpo_0032_8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--jobs", nargs="+", type=int, default=[1, 2], help="runs at a time, one table row each")
    parser.add_argument("--out", type=Path, default=RESULTS / "study_throughput", help="without its ending")
    parser.add_argument("overrides", nargs="*", help="key=value for every run; put them last, after a lone --")
    options = parser.parse_args()
    rows, compared, equal = [], [], True
    for jobs in options.jobs:
        left = {}
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(way, jobs, options, Path(folder)))
                left[way] = traces(Path(folder))
            print(json.dumps(rows[-1]), flush=True)
        alone, hosted = left.values()
        differ = sorted(name for name in {*alone, *hosted} if alone.get(name) != hosted.get(name))
        equal &= not differ
        compared.append(
            f"{jobs} at a time: {len(alone)} files compared (jsonl without timings; bytes of samples, evaluations, weights, "
            f"optimizer), {len(differ)} differ{': ' + ', '.join(differ[:5]) if differ else ''}."
        )
    text = table(rows, options, compared)
    options.out.with_suffix(".md").write_text(text)
    options.out.with_suffix(".json").write_text(json.dumps({"rows": rows, "compared": compared}, indent=1) + "\n")
    print(text)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
