"""Places of this machine where run after run is carried out in processes that stay (host_process.py).

A run that finishes leaves its host to the next one. A run that does not (it failed, was stopped, was killed) takes its host
with it and nothing else: the next run starts another. So does a run after a source file has changed, and one that needs
other processes than the host has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from Verl import REPO_ROOT
from Verl.adapter.device import device_for
from Verl.errors import UserError
from Verl.study.host_process import ANEW
from Verl.study.places import GRACE_SECONDS, Process

_SOURCES = (".py", ".yaml")
_PROGRAM = (sys.executable, "-m", "Verl.study.host_process")


def _sources() -> int:
    """Another number where a source file has changed: a process keeps what it has imported."""
    files = [path for path in (REPO_ROOT / "Verl").rglob("*") if path.suffix in _SOURCES]
    return hash(tuple((str(path), *(path.stat().st_mtime_ns, path.stat().st_size)) for path in sorted(files)))


def can_share(config: DictConfig) -> bool:
    """Whether such a run can be carried out in a host."""
    return device_for(config.trainer.device).can_host(config)


def check(configs: Mapping[str, DictConfig]) -> None:
    """Refuse hosts where a run can't share processes. Args: configs: of each arm.

    Raises:
        UserError: the first such arm.
    """
    for arm, config in configs.items():
        if not can_share(config):
            raise UserError(
                f"--host: {arm} can't share processes: it takes trainer.device=cpu, rollout hf, the batched agent loop and one "
                "device; leave --host out"
            )


class HostedPlaces:
    """`count` runs at a time on this machine, each in a host.

    Args:
        say: takes a line for the user.
        program: what a host's process is.
    """

    def __init__(self, count: int, say: Callable[[str], None], program: Sequence[str] = _PROGRAM):
        self.count, self.say, self._program = count, say, program
        self._idle: list[_Host] = []
        self._busy: set[_Host] = set()
        self._numbers = 0

    def start(self, command: Sequence[str], environment: Mapping[str, str], console: Path) -> Process | _HostedRun:
        """A run. Args: command: bash, its script, its overrides; any other is a process of its own."""
        shell, script, *overrides = command
        if shell != "bash":
            return Process(command, environment, console)
        request = {
            "script": script, "overrides": overrides, "environment": {**os.environ, **environment},
            "console": str(console), "folder": os.getcwd(),
        }  # fmt: skip
        console.parent.mkdir(parents=True, exist_ok=True)
        return _HostedRun(self, request)

    def take(self, request: Mapping) -> _Host:
        """A host for a run: one that is idle, or a new one."""
        version = _sources()
        while self._idle:
            host = self._idle.pop()
            if host.process.poll() is None and host.version == version and host.environment == request["environment"]:
                break
            host.close()
        else:
            self._numbers += 1
            log = Path(request["console"]).parent / f"host_{os.getpid()}_{self._numbers}.console"
            host = _Host(self._program, request["environment"], log, version)
        self._busy.add(host)
        return host

    def release(self, host: _Host, status: int | None) -> None:
        """After a run. Args: status: that the host ended with; None where it waits for the next run."""
        self._busy.discard(host)
        if status is None:
            self._idle.append(host)
        else:
            host.close()

    def close(self) -> None:
        """End the hosts that wait."""
        for host in self._idle:
            host.process.close_input()
        for host in self._idle:
            host.close()
        self._idle.clear()


class _Host:
    """A host's process, and the pipe with its answers."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str], log: Path, version: int):
        self.environment, self.version, self._log = environment, version, log
        answers, theirs = os.pipe()
        os.set_blocking(answers, False)
        self._answers = answers
        try:
            path = os.pathsep.join(filter(None, (str(REPO_ROOT), environment.get("PYTHONPATH"))))
            self.process = Process([*program, str(theirs)], {**environment, "PYTHONPATH": path}, log, keep=theirs)
        finally:
            os.close(theirs)

    def ask(self, request: Mapping) -> None:
        self.process.write(json.dumps(request) + "\n")

    def answer(self) -> int | None:
        """The status of the run, once it is done and the host waits for another."""
        with suppress(BlockingIOError):
            if text := os.read(self._answers, 64):
                return int(text)
        return None

    def close(self) -> None:
        """End it; what it said is kept only where it said something."""
        if self._answers < 0:
            return
        self.process.close_input()
        deadline = time.monotonic() + GRACE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.process.kill()
        os.close(self._answers)
        self._answers = -1
        with suppress(OSError):
            if not self._log.stat().st_size:
                self._log.unlink()


class _HostedRun:
    """A run in a host."""

    def __init__(self, places: HostedPlaces, request: Mapping):
        self._places, self._request = places, request
        self._status: int | None = None
        self._stopping = False  # its end is then expected
        self._begin()

    def _begin(self) -> None:
        self._host = self._places.take(self._request)
        self._host.ask(self._request)

    def poll(self) -> int | None:
        if self._status is not None:
            return self._status
        ended = self._host.process.poll()  # before the answer is looked for: it may have come in between
        status = self._host.answer()
        if status is None and ended is None:
            return None
        self._places.release(self._host, ended)
        if ended not in (None, 0, ANEW) and not self._stopping:
            run = Path(self._request["console"]).stem
            self._places.say(f"{run}: its host ended with it (status {ended}); the next run starts another")
        if status is None and ended == ANEW:
            self._begin()
            return None
        self._status = ended if status is None else status
        return self._status

    def ask_to_stop(self) -> None:
        if self._status is None:
            self._stopping = True
            self._host.process.ask_to_stop()

    def kill(self) -> None:
        if self._status is None:
            self._host.process.kill()
            self.poll()
