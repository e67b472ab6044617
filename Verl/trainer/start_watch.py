"""A start that makes no progress says what it waits for, and one that can't succeed ends with the reason.

Ray waits for a worker without end: for one that its memory limit kills again and again, for one whose command fails, for one
that never answers. A thread beside the start looks once a second. After SAY_SECONDS in one stage it says so; a start is given
up when for GIVE_UP_SECONDS no worker of Ray's has been there, memory has been above Ray's limit, or the whole process tree has
neither computed nor read anything. A slow start (a large model, a busy machine) does compute or read, and is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

from Verl.errors import RunStopped
from Verl.trainer import own_ray
from Verl.trainer.interruption import end_children
from Verl.wording import duration

SAY_SECONDS = 25.0
GIVE_UP_SECONDS = 150.0
_LAST_SECONDS = 30.0
_SIGNAL = signal.SIGUSR2
# Of the whole tree, per second; Ray's own processes, with nothing to do, take a third of it.
_IDLE_CORES, _IDLE_BYTES, _IDLE_NETWORK = 0.1, 1e6, 5e5
_NO_WORKERS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class StartWatch:
    """Watches a start from `with` to its end or `done`.

    Args:
        say: takes a line for the user.
        last_words: records how the run ended, should the process have to be cut off; it is given the reason.
        say_after, give_up_after: seconds. last_seconds: for the run to end by itself once it was given up.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        last_words: Callable[[str], None] = lambda reason: None,
        say_after: float = SAY_SECONDS,
        give_up_after: float = GIVE_UP_SECONDS,
        last_seconds: float = _LAST_SECONDS,
    ):
        self._say, self._last_words = say, last_words
        self._say_after, self._give_up_after, self._last_seconds = say_after, give_up_after, last_seconds
        self._what, self._needs_workers, self._since = "the start", False, time.monotonic()
        self._over = threading.Event()
        self._reason: str | None = None
        self._before: object = None

    def stage(self, what: str, needs_workers: bool = False) -> None:
        """What is waited for from here on; `needs_workers`: whether Ray's workers should soon be there."""
        self._what, self._needs_workers, self._since = what, needs_workers, time.monotonic()

    def __enter__(self) -> StartWatch:
        self._before = signal.signal(_SIGNAL, self._raise)
        threading.Thread(target=self._look, daemon=True, name="start watch").start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()

    def done(self) -> None:
        """The start is over."""
        self._over.set()

    def _raise(self, number: int, frame: object) -> None:
        if self._reason and not self._over.is_set():
            raise RunStopped(self._reason)

    def _look(self) -> None:
        signs, said = _Signs(self._give_up_after), 0.0
        while not self._over.wait(1.0):
            waited = time.monotonic() - self._since
            signs.look(self._needs_workers)
            if waited < said:  # a new stage
                said = 0.0
            if waited >= said + self._say_after:
                said = waited
                self._say(f"waiting for {self._what} ({duration(waited)}){signs.in_words()}")
            reason = signs.hopeless()
            if reason and waited >= self._give_up_after:
                self._give_up(f"waited {duration(waited)} for {self._what}: {reason}")
                return

    def _give_up(self, reason: str) -> None:
        self._reason = reason
        os.kill(os.getpid(), _SIGNAL)  # ends a wait of the main thread
        deadline = time.monotonic() + self._last_seconds
        while time.monotonic() < deadline:  # the run's end, and Ray's, which may wait for what never comes too
            if self._over.wait(0.2) and not own_ray.is_up():
                return
            time.sleep(0.2)
        with contextlib.suppress(Exception):
            self._say(reason)
            self._last_words(reason)
        end_children()
        os._exit(1)


class _Signs:
    """What can be seen of a start from outside: its workers, the machine's memory, what the process tree does."""

    def __init__(self, give_up_after: float):
        now = time.monotonic()
        self._limit = give_up_after
        self._worker_seen = self._memory_low = self._active = now  # when last
        self._used: tuple[float, dict[tuple[int, float], tuple[float, float]], int] | None = None
        self._workers, self._memory = 0, 0.0

    def look(self, needs_workers: bool) -> None:
        now = time.monotonic()
        tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
        self._workers = sum(_is_worker(one) for one in tree)
        if self._workers or not needs_workers:
            self._worker_seen = now
        self._memory = own_ray.memory_used()
        if self._memory < own_ray.memory_limit():
            self._memory_low = now
        if self._is_active(tree, now):
            self._active = now

    def _is_active(self, tree: list[psutil.Process], now: float) -> bool:
        """Whether the tree has computed, read or received more than Ray does with nothing to do, in the seconds before."""
        used = {}
        for one in tree:
            with contextlib.suppress(psutil.Error):
                times, traffic = one.cpu_times(), one.io_counters()
                used[one.pid, one.create_time()] = (times.user + times.system, traffic.read_chars + traffic.write_chars)
        counters = psutil.net_io_counters()
        network = counters.bytes_recv if counters else 0
        if self._used is None:
            self._used = now, used, network
            return True
        then, before, network_before = self._used
        seconds = now - then
        if seconds < 5:
            return False
        self._used = now, used, network
        computed, moved = (sum(mine[i] - before.get(key, (0.0, 0.0))[i] for key, mine in used.items()) for i in (0, 1))
        return (
            computed > _IDLE_CORES * seconds
            or moved > _IDLE_BYTES * seconds
            or network - network_before > _IDLE_NETWORK * seconds
        )

    def in_words(self) -> str:
        found = []
        if self._memory >= own_ray.memory_limit():
            found.append(
                f"{self._memory:.0%} of the memory is in use, and Ray ends workers above {own_ray.memory_limit():.0%}"
            )
        if time.monotonic() - self._worker_seen > 10:
            found.append("no worker of Ray's has come up yet")
        if time.monotonic() - self._active > 15:
            found.append("nothing is computed or read meanwhile")
        return f": {'; '.join(found)}" if found else ""

    def hopeless(self) -> str | None:
        """Why the start can't succeed any more; None while it may."""
        now = time.monotonic()
        if now - self._memory_low >= self._limit:
            return (
                f"{self._memory:.0%} of this machine's memory is in use, and Ray ends every worker above "
                f"{own_ray.memory_limit():.0%}: free some, or set RAY_memory_usage_threshold"
            )
        if now - self._worker_seen >= self._limit:
            return f"no worker of Ray's came up; {own_ray.said_last() or 'its own logs say nothing'}"
        if now - self._active >= self._limit:
            return "nothing was computed or read in all that time; `python -m Verl.doctor` looks at the machine"
        return None


def _is_worker(process: psutil.Process) -> bool:
    """Whether a process is a worker that has answered Ray, which then names it."""
    with contextlib.suppress(psutil.Error, IndexError):
        name = process.cmdline()[0]
        return name.startswith("ray::") and not name.startswith(_NO_WORKERS)
    return False
