"""math-verify behind a wall: an answer that hangs or explodes costs its own score and is counted, nothing else.

math-verify parses LaTeX that a model made up, and sympy evaluates it: `9^{9^{9}}` alone keeps one C call busy for far
longer than any run can wait, and no Python signal handler can interrupt it. So math-verify runs in child processes
(`Verl.reward.child`) that are held to limits by the kernel, and that are replaced when they die.

Limits, measured on MATH-500 (references against themselves and against other questions' answers, 1,000 comparisons):
the slowest took 0.2 s of processor time, and the process grew to 76 MB. The defaults leave ten times the time (2 s),
and memory up to half of 512 MB. The wall-clock limit (20 s) is a second line, for a child that is stopped or starved;
it is long because on a busy machine it would otherwise cost right answers.

The parent may be a Ray worker with threads and an event loop, which must not be forked: children are started with
`subprocess` (no code of ours runs between fork and exec) as fresh interpreters, without torch, in about half a second.
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from enum import Enum

from Verl import REPO_ROOT, cores

logger = logging.getLogger(__name__)

_START_SECONDS = 120.0  # on an idle machine half a second; then as many imports from a slow disk as it takes
_MAX_LOGGED = 100
_MOST_CHILDREN = 8  # of the shared guard: 80 MB each, and started only where as many answers wait
_MAX_REQUEST_BYTES = 32_768  # below the 64 KB of a pipe, so that writing a request never blocks


class ScoringOutcome(Enum):
    """What became of one comparison."""

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILURE = "failure"
    TIMEOUT = "timeout"


class _ChildGone(Exception):
    """The child ended; `args[0]` is its return code."""


class _Child:
    """One child process and the pipes to it. Used by one thread at a time."""

    def __init__(self, cpu_seconds: float, memory_mb: int):
        paths = [str(REPO_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "Verl.reward.child", str(cpu_seconds), str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        self.ready = False

    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, line: bytes) -> None:
        try:
            self.process.stdin.write(line)
        except BrokenPipeError:
            raise _ChildGone(self.process.wait()) from None

    def receive(self, seconds: float) -> dict:
        """The next reply. Raises TimeoutError after `seconds`, _ChildGone if the child ends."""
        deadline, buffer = time.monotonic() + seconds, b""
        waiter = select.poll()  # select.select fails on file descriptors above 1,023, and a Ray worker may have those
        waiter.register(self.process.stdout, select.POLLIN | select.POLLHUP)
        while not buffer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not waiter.poll(left * 1000):
                raise TimeoutError
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise _ChildGone(self.process.wait())
            buffer += chunk
        return json.loads(buffer)

    def end(self) -> None:
        """End the process, whatever it does, and leave no zombie."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


class MathVerifyGuard:
    """A pool of math-verify children. Threads may share it; each comparison has a child to itself.

    Children are started when first needed. `counts` holds how many comparisons had each outcome.

    Args:
        workers: number of children, so of comparisons at a time.
        cpu_seconds: processor time that one comparison may take.
        wall_seconds: wall-clock time after which a child is given up although it used less processor time.
        memory_mb: limit of the child's address space; more than half of it in use counts as a failure.
    """

    def __init__(self, workers: int = 1, cpu_seconds: float = 2.0, wall_seconds: float = 20.0, memory_mb: int = 512):
        if workers < 1 or cpu_seconds <= 0 or wall_seconds <= 0 or memory_mb < 1:
            raise ValueError(f"limits must be positive: {workers=}, {cpu_seconds=}, {wall_seconds=}, {memory_mb=}")
        self.counts: Counter[ScoringOutcome] = Counter()
        self._workers = workers
        self.owner = os.getpid()
        self._limits = (cpu_seconds, memory_mb)
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._closed = False
        # Last in, first out: the second child is only started where two are needed at the same time.
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)
        self._children: set[_Child] = set()
        self._logged: set[str] = set()

    def check(self, truth: str, answer: str) -> ScoringOutcome:
        """Whether math-verify calls `answer` equivalent to `truth`. Both are text with the formula boxed or in dollars.

        Never raises: what goes wrong is logged once, counted, and a FAILURE.
        """
        child = self._slots.get()  # waiting for a free child is not charged to this answer
        try:
            child, outcome = self._ask(child, json.dumps([truth, answer]).encode() + b"\n")
        except Exception as error:  # e.g. the process table is full: the next answer tries again with a new child
            self._discard(child)
            child, outcome = None, self._failure(f"{type(error).__name__}: {error}")
        finally:
            self._slots.put(child)
        with self._lock:
            self.counts[outcome] += 1
        return outcome

    def pids(self) -> list[int]:
        """The process ids of the children that live."""
        with self._lock:
            return [child.process.pid for child in self._children if child.alive()]

    def close(self) -> None:
        """End all children. Comparisons under way or yet to come are failures."""
        if os.getpid() != self.owner:
            return  # a forked copy of us: the children are not its own, and slots in use would never come back
        with self._lock:
            self._closed = True
            for child in self._children:
                child.process.kill()
        # A thread at work closes its own pipes once it notices: closing them under it could hit a reused descriptor.
        for child in [self._slots.get() for _ in range(self._workers)]:
            self._discard(child)
            self._slots.put(None)

    def _ask(self, child: _Child | None, line: bytes) -> tuple[_Child | None, ScoringOutcome]:
        """The outcome, and the child for the next comparison (None: start one then)."""
        if len(line) > _MAX_REQUEST_BYTES:
            return child, self._failure(f"truth and answer together exceed {_MAX_REQUEST_BYTES} bytes")
        reason = ""
        for _ in range(2):  # a child killed from outside (out-of-memory killer, kill -9) is no fault of this answer
            child = self._usable(child)
            try:
                child.send(line)
                reply = child.receive(self._wall_seconds)
            except TimeoutError:
                return self._replace(child), ScoringOutcome.TIMEOUT
            except _ChildGone as gone:
                if gone.args[0] == -signal.SIGPROF:
                    return self._replace(child), ScoringOutcome.TIMEOUT
                child, reason = self._replace(child), f"ended with {gone.args[0]}"
                continue
            if reply.get("last"):
                child = self._replace(child)
            if "equal" in reply:
                return child, ScoringOutcome.EQUAL if reply["equal"] else ScoringOutcome.DIFFERENT
            return child, self._failure(reply["error"])
        return child, self._failure(f"the math-verify child {reason}, twice for one answer")

    def _usable(self, child: _Child | None) -> _Child:
        """A child that waits for work: this one if it lives, else a new one. Raises RuntimeError if none starts."""
        if child is None or not child.alive():
            child = self._replace(child)
        if child is None:
            raise RuntimeError("this guard is closed")
        if not child.ready:
            try:
                child.receive(_START_SECONDS)
            except (TimeoutError, _ChildGone) as error:
                self._discard(child)
                raise RuntimeError(f"a math-verify child did not start ({error!r}); what it wrote is above") from None
            child.ready = True
        return child

    def _replace(self, child: _Child | None) -> _Child | None:
        """End a child and start its successor, which warms up while nobody waits for it; None if we are closed."""
        self._discard(child)
        with self._lock:
            if self._closed:
                return None
            child = _Child(*self._limits)
            self._children.add(child)
        return child

    def _discard(self, child: _Child | None) -> None:
        if child is not None:
            child.end()
            with self._lock:
                self._children.discard(child)

    def _failure(self, reason: str) -> ScoringOutcome:
        """FAILURE, with its reason in the log the first time it occurs."""
        with self._lock:
            new = reason not in self._logged and len(self._logged) < _MAX_LOGGED
            if new:
                self._logged.add(reason)
        if new:
            logger.warning("math-verify failed (counted; this reason is not logged again): %s", reason)
        return ScoringOutcome.FAILURE


_shared: MathVerifyGuard | None = None
_shared_lock = threading.Lock()


def shared_guard() -> MathVerifyGuard:
    """The guard of this process, made when first asked for and closed at exit. A forked process gets its own."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.owner != os.getpid():
            _shared = MathVerifyGuard(workers=min(_MOST_CHILDREN, cores.usable()))
            atexit.register(_shared.close)
        return _shared


def close_shared() -> None:
    """End the children of this process's guard; who asks for it next gets a new one."""
    global _shared
    with _shared_lock:
        if _shared is not None and _shared.owner == os.getpid():
            _shared.close()
            atexit.unregister(_shared.close)
        _shared = None
