"""What stops a command: Ctrl-C, kill, a closed terminal."""

import signal


def raise_on_stop() -> None:
    """From here on SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    SIGINT is set too: a shell starts a job with `&` with SIGINT ignored, and `kill -INT` must still end it. SIGHUP stays
    ignored where it was (nohup).
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
