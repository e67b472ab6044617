"""Where runs run: processes of this machine, or GPUs of a Ray cluster. A run never outlives the runner.

Each run is a process group of its own. On Linux the kernel kills the group's leader (the trainer: the scripts `exec`
it) when the runner dies, whatever it dies of (prctl(2), PR_SET_PDEATHSIG); Ray's own processes die with the trainer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
GRACE_SECONDS = 30.0  # a trainer that gets SIGTERM writes its status and stops Ray


class Place(Protocol):
    """A started run."""

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def ask_to_stop(self) -> None:
        """Tells it to save what it has and to end; returns at once."""

    def kill(self) -> None:
        """Ends it, if it still runs, and everything that it started."""


class Places(Protocol):
    """What starts runs, so many at a time."""

    count: int

    def start(self, command: Sequence[str], environment: Mapping[str, str], console: Path) -> Place: ...

    def close(self) -> None: ...


class Process:
    """A run as a process group of this machine; `console` gets what it says.

    Args:
        keep: a file descriptor that it inherits; then it also reads what `write` gives it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], console: Path, keep: int | None = None):
        console.parent.mkdir(parents=True, exist_ok=True)
        parent, self._stopping = os.getpid(), False

        def die_with_parent() -> None:
            if _LIBC is not None:
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:  # it died before the line above
                    os._exit(1)

        with open(console, "ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL if keep is None else subprocess.PIPE,
                pass_fds=() if keep is None else (keep,),
                env={**os.environ, **environment},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def write(self, text: str) -> None:
        """To its standard input; a process that has ended reads nothing, and `poll` says so."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()

    def close_input(self) -> None:
        """Nothing more will be written."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def poll(self) -> int | None:
        status = self._process.poll()
        if status is not None:
            self._kill_group()
        return status

    def wait(self) -> int:
        """Until it ends. An interruption stops it: Ray's way to cancel a task shows only between two calls, hence the sleep."""
        try:
            while (status := self.poll()) is None:
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise
        return status

    def ask_to_stop(self) -> None:
        # The leader alone: a trainer stops Ray's processes itself, and they must not go before it.
        if not self._stopping and self._process.poll() is None:
            self._stopping = True
            self._process.terminate()

    def stop(self) -> None:
        """Asks it to stop, and kills it if it has not ended after GRACE_SECONDS."""
        self.ask_to_stop()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        self._kill_group()
        self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class LocalPlaces:
    """`count` runs at a time on this machine."""

    def __init__(self, count: int):
        self.count = count

    def start(self, command: Sequence[str], environment: Mapping[str, str], console: Path) -> Process:
        return Process(command, environment, console)

    def close(self) -> None:
        """Nothing to hand back."""


class RayPlaces:
    """One run per GPU of a Ray cluster; its nodes see this repository and its results under one path.

    Ray shows each run its own GPU (CUDA_VISIBLE_DEVICES); the trainer starts a Ray of its own within.
    """

    def __init__(self, address: str | None, resources: Mapping[str, float] | None = None):
        import ray

        self._ray = ray
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 1, **(resources or {})}
        if not ray.is_initialized():
            ray.init(address=address, logging_level="warning", log_to_driver=False)
        self.count = int(ray.cluster_resources().get("GPU", 0) // options["num_gpus"]) if options["num_gpus"] else 1
        # Not retried by Ray: the runner counts attempts.
        self._task = ray.remote(max_retries=0, **options)(_run_there)

    def start(self, command: Sequence[str], environment: Mapping[str, str], console: Path) -> _Remote:
        return _Remote(self._ray, self._task.remote(list(command), dict(environment), str(console), os.getcwd()))

    def close(self) -> None:
        self._ray.shutdown()


def _run_there(command: list[str], environment: dict[str, str], console: str, folder: str) -> int:
    # Ray's way to cancel a task is an interruption, and a shell that started Ray with `&` has left SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    return Process(command, environment, Path(console)).wait()


class _Remote:
    """A run on some node."""

    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference = ray, reference

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayError:  # its node or worker is gone, and the run with it
            return -signal.SIGKILL

    def ask_to_stop(self) -> None:
        self._ray.cancel(self._reference)  # a KeyboardInterrupt over there

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)  # kills the worker, and the kernel its run
