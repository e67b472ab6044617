"""Files that are whole or not there, and locks that end with their holder."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from Verl.errors import UserError

TEMPORARY = ".tmp"  # ends the name of a file that is being written


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name in the same folder, then renames: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, busy: str | None = None, remove: bool = False) -> Iterator[None]:
    """Hold a lock file (made if it is missing) or a folder. The kernel lets go when the process ends, however it ends.

    Args:
        busy: what to say where another process holds it; None waits for it.
        remove: whether the file goes with the lock.

    Raises:
        UserError: `busy`, or that the file or its folder is another user's. OSError: it can't be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise _not_ours(path) from None
    while True:
        handle = _open_lock(path)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise UserError(busy) from None
            if not _still_there(path, handle):
                continue  # its holder removed it between our two calls
            try:
                yield
            finally:
                if remove:
                    with suppress(OSError):
                        path.unlink()
            return
        finally:
            os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock file. Takes it for an instant."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _open_lock(path: Path) -> int:
    with suppress(PermissionError, IsADirectoryError):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:  # a folder, or a file that another user left: reading is enough for a lock
        return os.open(path, os.O_RDONLY)
    except PermissionError:
        raise UserError(f"{path} was left by another user and can't be opened: have it deleted, then start again") from None
    except FileNotFoundError:
        raise _not_ours(path) from None


def _not_ours(path: Path) -> UserError:
    return UserError(
        f"{path.parent} can't be written to: no permission; choose a folder of your own, or ask its owner to make what is "
        "missing"
    )


def _still_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
