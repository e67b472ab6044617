"""A contender as a child process: its output, when things happened, and the peak memory of all of its processes."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.default_run import tree_memory

_LOOK_SECONDS = 0.1
_CPU_SECONDS = 1.0
_SETTLE_SECONDS = 20.0  # a short burst at the start says little about the rest
_MEMORY_SECONDS = 5.0  # reading a run's ten processes' pages takes a core for 0.06 s, which the step then lacks


@dataclass
class Watched:
    """What a finished child left: exit status, output, seconds at which each mark was first true, peak gigabytes, and the
    share of the cores that processes of others took meanwhile."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    marks: dict[str, float]
    gigabytes: float
    others: float

    def tail(self) -> str:
        return "\n".join((self.stdout + self.stderr).splitlines()[-15:])


class Disturbed(Exception):
    """Other processes took more of the cores than allowed; the run was stopped."""


class TreeCPU:
    """Processor seconds of a process and all that it ever started. What has ended counts as it was last seen: Ray's raylet
    leaves its children to the system, so their processor time is not reported."""

    def __init__(self, root: psutil.Process):
        self.root, self.seen = root, {}

    def seconds(self) -> float:
        for one in [self.root, *self.root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                self.seen[one.pid] = times.user + times.system
        return sum(self.seen.values())


def _busy() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait


def watch(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    marks: dict[str, Callable[[], bool]] | None = None,
    calm: float = 1.0,
) -> Watched:
    """Runs a command to its end.

    Raises:
        Disturbed: others took more than `calm` of the cores; the command is stopped rather than measured to the end.
    """
    reached: dict[str, float] = {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began, busy_before = time.monotonic(), _busy()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        tree, peak, others = psutil.Process(process.pid), 0.0, 0.0
        cpu, next_cpu, next_memory = TreeCPU(tree), began + _CPU_SECONDS, began
        while process.poll() is None:
            now = time.monotonic()
            for name, happened in (marks or {}).items():
                if name not in reached and happened():
                    reached[name] = now - began
            with contextlib.suppress(psutil.NoSuchProcess):
                if now >= next_memory:
                    peak, next_memory = max(peak, tree_memory(tree)), now + _MEMORY_SECONDS
                if now >= next_cpu:
                    own, next_cpu = cpu.seconds(), now + _CPU_SECONDS
                    others = max(0.0, _busy() - busy_before - own) / (now - began) / psutil.cpu_count()
            if now - began > _SETTLE_SECONDS and others > calm:
                _stop(process)
                raise Disturbed(f"others took {100 * others:.0f} % of the cores")
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        return Watched(process.returncode, out.read(), err.read(), seconds, reached, peak, others)


def _stop(process: subprocess.Popen) -> None:
    """Asks first: our launcher takes its Ray down with it."""
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
