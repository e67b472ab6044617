"""A user's reward function behind a time limit: a call that hangs costs its own reward and is counted, nothing else.

A thread can't be stopped, and a call that holds the interpreter's lock (a regular expression that explodes is the usual
one) stops every other thread with it. So a plain function is called in child processes (`Verl.reward.timed_child`), one
call at a time in each; a child whose call takes too long is killed and replaced. What this asks of a function: it must be
loadable from its file alone, its arguments and its result must pickle, and what it remembers between calls it remembers
per child. Before each call the child seeds `random`, and numpy and torch where they are loaded, from the response's place
in the run, so that a function that draws numbers gives the same rewards again.

A coroutine function stays in the event loop, where hundreds of calls may wait for a server at the same time; its limit ends
what waits, not what computes without ever awaiting.
"""

import asyncio
import atexit
import os
import pickle
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any

from Verl import REPO_ROOT, cores

DEFAULT_SECONDS = 30.0
_START_SECONDS = 300.0  # to import what the function's file imports
_HOPELESS = 8  # calls that all ran into the limit, and none that did not: the others are not waited for
_HEADER = struct.Struct("!Q")


class CallFailed(Exception):
    """The function raised, or its process ended. `trace`: the traceback in the child, or the message."""

    def __init__(self, message: str, trace: str = ""):
        super().__init__(message)
        self.trace = trace or message


class CallTimedOut(Exception):
    """The call took longer than its limit."""


class _ChildGone(Exception):
    """The child closed its end; `args[0]` is its exit status."""


class _Child:
    """One process and the socket to it. Used by one call at a time, in whichever event loop that runs."""

    def __init__(self, function: bytes):
        self._function, self.ready = function, False
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        paths = [str(REPO_ROOT), os.environ.get("PYTHONPATH", "")]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "Verl.reward.timed_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )

    async def ask(self, request: bytes) -> Any:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, _HEADER.pack(len(request)) + request)
            size = _HEADER.unpack(await self._exactly(_HEADER.size))[0]
            return pickle.loads(await self._exactly(size))
        except (ConnectionError, EOFError):
            raise _ChildGone(self._status()) from None

    async def start(self) -> None:
        """Loads the function. Raises CallFailed with what the file raised."""
        if not self.ready:
            _result(await self.ask(self._function))
            self.ready = True

    async def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = await asyncio.get_running_loop().sock_recv(self._socket, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _status(self) -> int:
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:  # it has closed its socket and lives on
            self.process.kill()
            return self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()


class TimedFunction:
    """A function of a user's file, called in child processes.

    Args:
        path: the Python file, or pkg://package.module.
        name: of the function in it.
        fixed: keyword arguments that every call gets.
        seconds: the limit of one call.
        workers: how many calls may go on at a time.
    """

    def __init__(self, path: str, name: str, fixed: Mapping[str, Any], seconds: float, workers: int | None = None):
        self._function = pickle.dumps((path, name, dict(fixed), seconds))
        self._seconds = seconds
        self._workers = workers or max(4, min(8, cores.usable()))
        self._idle: list[_Child] = []  # last in, first out: a further child is started only where it is needed
        self._children: set[_Child] = set()
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._answered = self._late = 0
        _ALL.add(self)

    async def __call__(self, seed: int, **arguments: Any) -> Any:
        """The function's result.

        Raises:
            CallTimedOut: the call was given up.
            CallFailed: the function raised, or its process ended without a reply, twice.
        """
        request = pickle.dumps((seed, arguments))
        async with self._slot():
            if self._late >= _HOPELESS and not self._answered:
                raise CallTimedOut(f"not called: the {self._late} calls before it all took longer than {self._seconds:g} s")
            reason: object = None
            for _ in range(2):  # a child that was killed from outside is no fault of this call's
                child = self._take()
                try:
                    reply = await self._limited(child, request)
                except _ChildGone as gone:
                    self._drop(child)
                    reason = gone.args[0]
                    continue
                except BaseException:  # too late, or the run was interrupted: what the child is at, nobody waits for
                    self._drop(child)
                    raise
                self._idle.append(child)
                self._answered += 1
                return _result(reply)
        raise CallFailed(f"the process of the reward function ended with status {reason}, twice for one call")

    async def _limited(self, child: _Child, request: bytes) -> Any:
        await asyncio.wait_for(child.start(), _START_SECONDS)
        try:
            return await asyncio.wait_for(child.ask(request), self._seconds)
        except asyncio.TimeoutError:
            self._late += 1
            raise CallTimedOut(f"took longer than {self._seconds:g} s") from None

    def _slot(self) -> asyncio.Semaphore:
        # A semaphore belongs to one event loop; the trainer opens one per batch.
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = (loop, asyncio.Semaphore(self._workers))
        return self._slots[1]

    def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.poll() is None:
                return child
            self._drop(child)
        child = _Child(self._function)
        self._children.add(child)
        return child

    def _drop(self, child: _Child) -> None:
        child.end()
        self._children.discard(child)

    def close(self) -> None:
        """End all children."""
        for child in list(self._children):
            self._drop(child)
        self._idle.clear()


def _result(reply: Any) -> Any:
    kind, *content = reply
    if kind == "error":
        raise CallFailed(*content)
    return content[0]


_ALL: "weakref.WeakSet[TimedFunction]" = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """End the children of all functions."""
    for function in list(_ALL):
        function.close()
