"""One process that calls a user's reward function, one call at a time, until its socket closes.

Started by `Verl.reward.timed` as `python -m Verl.reward.timed_child <file descriptor>`. A message is eight bytes of length
and a pickle. The first is (path, name, fixed arguments, seconds), each later one (seed, arguments); a reply is
("value", result) or ("error", message, traceback). Whoever waits too long for a reply kills this process. Should that one
be gone, a thread that looks for it every second ends the process, and a limit of processor time one whose call holds the
interpreter's lock.
"""

import asyncio
import importlib
import importlib.util
import inspect
import os
import pickle
import random
import resource
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from Verl import cores

_HEADER = struct.Struct("!Q")
_SPARE_SECONDS = 10.0  # beyond what a living parent waits for


def load(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of a Python file, or of pkg://package.module."""
    if path.startswith("pkg://"):
        module = importlib.import_module(path.removeprefix("pkg://"))
    else:
        spec = importlib.util.spec_from_file_location("user_reward", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules["user_reward"] = module
        spec.loader.exec_module(module)
    return getattr(module, name)


def _seed(seed: int) -> None:
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed % 2**63)


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> bytes:
    result = function(**arguments)
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    return pickle.dumps(("value", dict(result) if isinstance(result, Mapping) else result))


async def _awaited(result: Any) -> Any:
    return await result


def _error(error: BaseException) -> bytes:
    # Without the frames of this file, which say nothing to the function's author.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    return pickle.dumps(("error", f"{type(error).__name__}: {error}", text))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Serve calls until the socket closes."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the run, which ends its children itself
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    function, fixed, processor_seconds = None, {}, 0.0
    while True:
        try:
            message = pickle.loads(_read(connection, _HEADER.unpack(_read(connection, _HEADER.size))[0]))
        except (EOFError, ConnectionError):
            return
        try:
            if function is None:
                path, name, fixed, seconds = message
                processor_seconds = (seconds + _SPARE_SECONDS) * cores.usable()
                function = load(path, name)
                reply = pickle.dumps(("value", None))
            else:
                seed, arguments = message
                _seed(seed)
                signal.setitimer(signal.ITIMER_PROF, processor_seconds)
                reply = _called(function, {**arguments, **fixed})
        except Exception as error:  # reported to the parent, which counts it
            reply = _error(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            connection.sendall(_HEADER.pack(len(reply)) + reply)
        except ConnectionError:
            return


if __name__ == "__main__":
    main()
