"""Two-step runs on the smallest model, one after another in one child process, and what each left, as digests.

The effect check (effect.py) and the effect table (tests/benchmarks/effects.py) ask with them whether a setting changes
anything. The child holds a host (Verl/cpu/host.py); what verl and Ray print goes to a log file.

    python -m Verl.study.probe LOG < jobs.jsonl > traces.jsonl
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from Verl import REPO_ROOT
from Verl.errors import UserError, last_line

SECONDS_AT_MOST = 300  # for one run; a run that hangs ends the host, and the next one starts another
# Wall time, memory and what hangs on them: not the same twice (Verl/trainer/run_log.py has the jsonl's).
_NOT_THE_SAME_TWICE = ("actor/perf/",)


@dataclass(frozen=True)
class ProbeJob:
    """One run: the entry point's name and its Hydra overrides. Its files are not kept."""

    name: str
    algorithm: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What a run left: SHA-256 digests, empty where there is nothing; or how it ended instead.

    weights: the actor's after the last step. responses: the training responses with question, number, tokens and reward.
    evaluation: the same of the evaluations. metrics: the jsonl without timings. files: the names in the run's folder.
    """

    weights: str = ""
    responses: str = ""
    evaluation: str = ""
    metrics: str = ""
    files: str = ""
    refused: str = ""  # the sentence of a check before the start
    failed: str = ""  # the last line of what stopped it


def run(jobs: Iterable[ProbeJob], log: Path) -> Iterator[tuple[ProbeJob, Trace]]:
    """Carry out the jobs in a child process; each with its trace, as they come.

    Raises:
        UserError: the child ended before it was done.
    """
    jobs = list(jobs)
    if not jobs:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT), "BANDIT_THREADS": "1", "RAY_ADDRESS": "local"}
    environment["RAY_worker_niceness"] = "0"  # the child is often not alone on the machine
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, cwd=REPO_ROOT,
    )  # fmt: skip
    try:
        child.stdin.write("".join(json.dumps(asdict(job)) + "\n" for job in jobs))
        child.stdin.close()
        for job in jobs:
            line = child.stdout.readline()
            if not line:
                raise UserError(f"the trial runs ended early (status {child.wait()}): {log} says why")
            yield job, Trace(**json.loads(line))
    finally:
        child.terminate()
        child.wait()


# ---- in the child -----------------------------------------------------------------------------------------------


def _carry_out(jobs: list[ProbeJob], answer: Callable[[Trace], None]) -> None:
    from Verl.adapter.device import device_for

    host = device_for("cpu").host()
    try:
        for job in jobs:
            print(f"==== {job.name}: {job.algorithm} {' '.join(job.overrides)}", flush=True)
            answer(_trace(host, job))
    finally:
        host.close()


def _trace(host: Any, job: ProbeJob) -> Trace:
    folder = Path(tempfile.mkdtemp(prefix="probe-"))
    try:
        try:
            config = _config(job, folder)
        except UserError as error:
            return Trace(refused=str(error))
        return _train(host, job, config, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(job: ProbeJob, folder: Path) -> Any:
    """Compose and check, as a run does before Ray starts."""
    from omegaconf import open_dict

    from Verl.trainer.chat_template import settle_template
    from Verl.trainer.config_checks import check
    from Verl.trainer.machine_checks import lacking
    from Verl.trainer.settings import compose
    from Verl.trainer.task_runner import set_environment
    from Verl.trainer.verl_checks import check_with_verl

    config = compose(job.algorithm, job.overrides)
    with open_dict(config):
        config.run.result_dir, config.run.figure_dir = str(folder), str(folder)
        config.run.name, config.run.dir = "run", str(folder / "run")
        settle_template(config)
    set_environment(config)  # before anything imports verl
    check(config, job.algorithm)
    missing = lacking(config)
    if missing:
        raise UserError(missing[0])
    check_with_verl(config)
    return config


def _train(host: Any, job: ProbeJob, config: Any, folder: Path) -> Trace:
    from omegaconf import OmegaConf
    from ray.exceptions import RayTaskError

    from Verl.trainer.console import Console
    from Verl.trainer.run_log import RunLog

    signal.alarm(SECONDS_AT_MOST)
    try:
        with open(folder / "run.log", "w") as file:
            run_log = RunLog("run", folder, Console(file), OmegaConf.to_container(config.samples), config.seed)
            weights = host.train(config, job.algorithm, run_log)
    except Exception as error:  # any of verl's, Ray's or ours: reported as the trace of this run
        traceback.print_exc()
        if not isinstance(error, RayTaskError):  # raised in a worker, whose process can go on; else start others
            host.close()
        return Trace(failed=f"{type(error).__name__}: {last_line(error)}"[:500])
    finally:
        signal.alarm(0)
    return Trace(
        weights=weights,
        responses=_table(folder / "run" / "samples"),
        evaluation=_table(folder / "run" / "evaluations"),
        metrics=_metrics(folder / "run.jsonl"),
        files=_names(folder),
    )


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _table(folder: Path) -> str:
    """Of all answers in a folder of parquet files: which question, what was said, what it earned."""
    import pyarrow.parquet as pq

    columns = ("step", "split", "data_source", "index", "rollout", "sample", "trained", "reward", "tokens")
    files = sorted(folder.glob("step_*.parquet"))
    if not files:
        return ""

    def rows() -> Iterator[str]:
        for file in files:
            table = pq.read_table(file)
            for column in columns:
                if column in table.column_names:
                    yield f"{column} {table[column].to_pylist()}"

    return _digest(rows())


def _metrics(path: Path) -> str:
    from Verl.trainer.run_log import TIMING_PREFIXES

    def lines() -> Iterator[str]:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            skip = (*TIMING_PREFIXES, *_NOT_THE_SAME_TWICE)
            yield json.dumps({key: value for key, value in record.items() if not key.startswith(skip)})

    return _digest(lines()) if path.is_file() else ""


def _names(folder: Path) -> str:
    return _digest(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def _too_long(*_: object) -> None:
    raise TimeoutError(f"the run took more than {SECONDS_AT_MOST} s")


def as_job(entry: Mapping[str, Any]) -> ProbeJob:
    return ProbeJob(entry["name"], entry["algorithm"], tuple(entry["overrides"]))


def main() -> None:
    log = Path(sys.argv[1]).resolve()
    jobs = [as_job(json.loads(line)) for line in sys.stdin]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _carry_out(jobs, lambda trace: print(json.dumps(asdict(trace)), file=answers, flush=True))


if __name__ == "__main__":
    main()
