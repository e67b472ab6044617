"""Locks: they wait or refuse, end with their holder, and take what another one left."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from Verl.errors import UserError
from Verl.files import is_locked, locked

_HOLD = """
import sys, time
from pathlib import Path
from Verl.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(path):
    child = subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_a_held_lock_refuses_and_ends_with_a_killed_holder(tmp_path):
    path = tmp_path / "new" / ".lock"
    child = _holder(path)
    try:
        assert is_locked(path)
        with pytest.raises(UserError, match="somebody is at it"), locked(path, "somebody is at it"):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with locked(path, "somebody is at it", remove=True):
        assert path.exists()
    assert not path.exists() and not is_locked(path)


def test_without_a_sentence_it_waits(tmp_path):
    order = []

    def second():
        with locked(tmp_path):
            order.append("second")

    with locked(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_lock_file_of_another_user(tmp_path, monkeypatch, mode):
    """Root may open anything, so the refusal is simulated: for writing, or altogether."""
    path = tmp_path / ".lock"
    path.touch()
    real = os.open

    def theirs(name, flags, *more, **options):
        if str(name) == str(path) and (mode == 0 or flags & os.O_RDWR):
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, flags, *more, **options)

    monkeypatch.setattr(os, "open", theirs)
    if mode:
        with locked(path, "busy"):
            pass
    else:
        with pytest.raises(UserError, match=f"{path} was left by another user"), locked(path, "busy"):
            pass
