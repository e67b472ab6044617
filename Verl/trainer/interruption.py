"""Ctrl-C, kill, a preempted job, a closed terminal: a run that is asked to stop saves the step under way and ends.

The first signal (SIGINT, SIGTERM or SIGHUP) is noted. The trainer looks at the note after every step, saves a checkpoint
and stops (`Verl/trainer/ppo/ending.py`). A step that takes longer than GRACE_SECONDS is given up: the run then goes on
from the checkpoint before it. A second signal ends the run at once. Whatever happens, the process is gone
LIMIT_SECONDS after the signal.

The handlers are set explicitly and not left to the default: a shell starts a job with `&` with SIGINT ignored, and such a
run must still react to `kill -INT`; `ray.init` replaces the SIGTERM handler, so `install` is called again after it.
SIGHUP stays ignored where it was (nohup).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import psutil

GRACE_SECONDS = 8.0  # for the step under way and its checkpoint
LIMIT_SECONDS = 14.0  # for everything, the end of Ray's processes included
STATUS = 130

# Whoever stops a job may signal each of its processes, and the study runner then passes the signal on once more.
_SAME_SIGNAL_SECONDS = 2.0


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop. A KeyboardInterrupt, so that no library's `except Exception` swallows it."""


class StopRequest:
    """Whether this process was asked to stop, and by what."""

    def __init__(self) -> None:
        self.by: str | None = None  # name of the first signal
        self._when = 0.0
        self._at_step_end = False
        self._leaving = False
        self._timers: list[threading.Timer] = []
        self._on_note: Callable[[str], None] = lambda text: None
        self._last_words: Callable[[], None] = lambda: None

    @property
    def made(self) -> bool:
        return self.by is not None

    def forget(self) -> None:
        """As in a process that was never asked."""
        self.done()
        self.__init__()

    def install(self) -> None:
        """Set the handlers; again after whatever may have replaced them."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._received)

    def tell(self, note: Callable[[str], None], last_words: Callable[[], None]) -> None:
        """`note` takes a line for the user. `last_words` records the interruption if the process has to be cut off."""
        self._on_note, self._last_words = note, last_words

    def wait_for_step_end(self) -> None:
        """From here on a first signal is left to the trainer, which stops at the end of its step."""
        self._at_step_end = True

    def check(self) -> None:
        """Raises Interrupted where a stop was asked for."""
        if self.made:
            raise Interrupted(self.by)

    def leave(self) -> None:
        """The run is ending anyway: from here on a first signal only sets the limit, and a second one cuts the end short.
        What the run says of itself is the caller's to record now."""
        self._leaving, self._last_words = True, lambda: None

    def done(self) -> None:
        """Nothing is left to end: forget the limit."""
        for timer in self._timers:
            timer.cancel()

    def _received(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.made:
            if now - self._when < _SAME_SIGNAL_SECONDS:
                return
            if self._leaving:
                self._cut_off()
            raise Interrupted(self.by)
        self.by, self._when = signal.Signals(number).name, now
        self._after(LIMIT_SECONDS, self._cut_off)
        if self._leaving:
            return
        if not self._at_step_end:
            raise Interrupted(self.by)
        self._on_note(f"{self.by}: stopping after this step (once more: at once)")
        # The main thread may be anywhere, also in a wait for a worker: a signal to ourselves ends that.
        self._after(GRACE_SECONDS, lambda: os.kill(os.getpid(), number))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _cut_off(self) -> None:
        """The end took too long: leave without the rest of it, and leave no process behind."""
        with contextlib.suppress(Exception):
            self._last_words()
        end_children()
        os._exit(STATUS)


def end_children() -> None:
    """Kill every process below this one."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


REQUEST = StopRequest()
