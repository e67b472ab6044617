"""The math-verify child: one process that compares answers until its standard input closes.

Started by `Verl.reward.guard` as `python -m Verl.reward.child <cpu seconds> <megabytes>`. One request is one line of
JSON, `[truth, answer]`; one reply is one line, `{"equal": bool}` or `{"error": text}`, with `"last": true` where the
process then ends. The first line it writes, `{}`, says that it is ready.

How it is held in check, by the kernel and not by Python, which can't interrupt a long power of two integers:

- time: ITIMER_PROF counts processor time, of all threads; at zero, SIGPROF ends the process. Processor time, because on
  a busy machine wall-clock time would make an answer's reward depend on the neighbours.
- memory: RLIMIT_AS. Parts of math-verify and sympy catch MemoryError and carry on with "different", so the peak is
  looked at after every answer; above half of the limit, the answer counts as failed and the process ends.
- its parent: closing the pipe ends it, and an idle child also looks for its parent every few seconds (a forked sibling
  may hold the pipe open). PR_SET_PDEATHSIG is not used: it fires when the *thread* that started the child ends.
"""

import json
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

_PARENT_CHECK_SECONDS = 5.0
# sympy's caches grow by about half a megabyte per thousand comparisons: make room before that looks like an explosion.
_COMPARISONS_PER_LIFE = 50_000


def _peak_mb() -> float:
    """The largest address space so far. Not ru_maxrss: a process inherits that from its parent, over exec."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmPeak:"):
                return int(line.split()[1]) / 1024
    return 0.0


@lru_cache(maxsize=1024)
def _parse_truth(truth: str) -> list[Any]:
    """The truth of a query is asked for once per rollout."""
    return _parse(truth)


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def _compare(truth: str, answer: str) -> dict[str, Any]:
    from math_verify import verify

    return {"equal": bool(verify(_parse_truth(truth), _parse(answer), timeout_seconds=None))}


def _reply_to(line: bytes, memory_mb: int) -> dict[str, Any]:
    """The reply to one request; its key "last" says that this process is not fit for another."""
    try:
        reply = _compare(*json.loads(line))
    except MemoryError:
        return {"error": "out of memory", "last": True}
    except Exception as error:  # reported to the parent, which counts it
        reply = {"error": f"{type(error).__name__}: {error}"[:500]}
    if _peak_mb() > memory_mb / 2:
        return {"error": f"used more than half of {memory_mb} MB", "last": True}
    return reply


def _requests(stream: BinaryIO, parent: int) -> Iterator[bytes]:
    """Lines, until the stream ends or the parent is gone."""
    buffer = b""
    while True:
        line, newline, rest = buffer.partition(b"\n")
        if newline:
            buffer = rest
            yield line
            continue
        if select.select([stream], [], [], _PARENT_CHECK_SECONDS)[0]:
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return
            buffer += chunk
        elif os.getppid() != parent:
            return


def _warm_up(memory_mb: int) -> None:
    """Load everything that the first answer would pay for, and check that the limit leaves room to work."""
    for text in (r"\boxed{\frac{1}{2}+x}", "it is $3$", "it is 3"):
        _compare(r"\boxed{x}", text)
    if _peak_mb() > memory_mb / 2:
        raise SystemExit(f"the math-verify child needs {_peak_mb():.0f} MB to start: {memory_mb} MB is too low a limit")


def main() -> None:
    """Serve requests from standard input until it closes."""
    cpu_seconds, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    parent = os.getppid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it then closes our pipe
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    # ANTLR writes to standard output and error: keep the pipe to ourselves, and the log of the run clean.
    replies = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    _warm_up(memory_mb)
    os.dup2(silent, 2)
    os.write(replies, b"{}\n")
    for served, line in enumerate(_requests(sys.stdin.buffer, parent), start=1):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _reply_to(line, memory_mb)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if served >= _COMPARISONS_PER_LIFE:
            reply["last"] = True
        os.write(replies, json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


if __name__ == "__main__":
    main()
