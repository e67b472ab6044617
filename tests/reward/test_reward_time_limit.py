"""A user's reward function that hangs, dies or draws numbers: each call has a limit, and none outlives its run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from Verl.reward.timed import CallFailed, CallTimedOut, TimedFunction

# One that holds the interpreter's lock for longer than anybody waits: no thread of its process runs meanwhile.
FUNCTIONS = r"""
import asyncio, os, random, re, signal, time

def mine(kind, value=0.0):
    if kind == "sleeps":
        time.sleep(3600)
    if kind == "explodes":
        re.match(r"(a+)+$", "a" * 60 + "b")
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "draws":
        return random.random()
    if kind == "raises":
        raise KeyError(kind)
    if kind == "ends":
        raise SystemExit(3)
    if kind == "where":
        return os.getpid()
    return value

def later(value):
    async def answer():
        await asyncio.sleep(0)
        return value
    return answer()
"""


@pytest.fixture
def timed(tmp_path: Path):
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    made = []

    def make(name: str = "mine", seconds: float = 20.0, **more) -> TimedFunction:
        made.append(TimedFunction(str(path), name, {}, seconds, **more))
        return made[-1]

    yield make
    for function in made:
        function.close()


def call(function: TimedFunction, *kinds: str, **more) -> list:
    """All calls at once; an error stands for its result."""

    async def together() -> list:
        calls = (function(seed, kind=kind, **more) for seed, kind in enumerate(kinds))
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(together())


@pytest.mark.parametrize("kind", ["sleeps", "explodes"])
def test_a_call_that_hangs_costs_itself_alone(timed, kind):
    function = timed(seconds=2.0)
    assert call(function, "plain", value=1.0) == [1.0]  # started
    began = time.monotonic()
    first, hung, last = call(function, "plain", kind, "plain", value=1.0)
    assert (first, last) == (1.0, 1.0) and isinstance(hung, CallTimedOut)
    assert time.monotonic() - began < 20
    assert call(function, "plain", value=2.0) == [2.0]


def test_a_function_that_always_hangs_is_not_waited_for_each_time(timed):
    began = time.monotonic()
    results = call(timed(seconds=1.0, workers=4), *["sleeps"] * 100)
    assert all(isinstance(result, CallTimedOut) for result in results)
    assert time.monotonic() - began < 60  # 25 rounds of a second and of new processes otherwise


def test_what_goes_wrong_in_the_child_is_reported(timed):
    raised, died, ended, good = call(timed(), "raises", "dies", "ends", "plain", value=4.0)
    assert str(raised) == "KeyError: 'raises'" and "raise KeyError(kind)" in raised.trace
    assert isinstance(died, CallFailed) and str(-signal.SIGSEGV) in str(died)
    assert isinstance(ended, CallFailed)
    assert good == 4.0


def test_a_function_that_returns_an_awaitable_is_awaited(timed):
    assert asyncio.run(timed("later")(0, value=3.0)) == 3.0


def test_numbers_that_a_function_draws_depend_on_the_place_alone(timed):
    one, other = (call(timed(workers=workers), *["draws"] * 6) for workers in (1, 3))
    assert one == other and len(set(one)) == 6


def test_children_work_side_by_side_and_end_with_their_function(timed):
    function = timed(workers=3)
    pids = {pid for _ in range(3) for pid in call(function, *["where"] * 12)}
    assert 1 <= len(pids) <= 3 and os.getpid() not in pids
    function.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("kind", ["sleeps", "plain"])
def test_no_child_outlives_a_killed_parent(timed, tmp_path, kind):
    script = (
        "import asyncio\nfrom Verl.reward.timed import TimedFunction\n"
        f"function = TimedFunction({str(tmp_path / 'functions.py')!r}, 'mine', {{}}, 3600.0, workers=1)\n"
        f"async def main():\n    print(await function(0, kind='where'), flush=True)\n    await function(0, kind={kind!r})\n"
        "    await asyncio.sleep(3600)\nasyncio.run(main())\n"
    )
    timed()
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(timeout=30)
