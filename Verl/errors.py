"""The one way a run says that it can't start or go on: a sentence for the user, and no traceback."""


class UserError(ValueError):
    """Bad input. The message is one sentence with the key, the value and what to do; the command ends with status 2."""


class RunStopped(RuntimeError):
    """A run that had to stop for a reason it can name (a NaN, a full disk); the command ends with status 1."""


def last_line(error: BaseException) -> str:
    """The last line of an error's text: with Ray, that is what went wrong; the rest is where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
