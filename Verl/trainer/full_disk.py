"""A disk that is full: distinguished from other errors, said in one sentence, and a status that is recorded all the same."""

import errno
import os
import shutil
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEXT_TO_NOTHING = 1 << 16  # bytes; where no more is free, whatever failed failed for want of space


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether `error` came from a full disk. A worker's error is known by its text or by the space that is left:
    torch's writer of checkpoints says only that it could not write."""
    chain: BaseException | None = error
    while chain is not None:
        if getattr(chain, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(chain):
            return True
        chain = chain.__cause__ or chain.__context__
    return free_bytes(folder) <= _NEXT_TO_NOTHING


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def sentence(folder: Path) -> str:
    """The message for the user."""
    return (
        f"the disk of {folder} is full: free some space and start the same command again; it goes on from the last checkpoint"
    )


def overwrite(path: Path, content: str) -> None:
    """Replace the content of a small file in the space that it has already.

    Not safe against a power cut in the middle, so only for where a new file can't be written.

    Raises:
        OSError: if even that fails; the file is then as it was.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        before, data = os.pread(handle, os.fstat(handle).st_size, 0), content.encode()
        try:
            if os.pwrite(handle, data, 0) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.pwrite(handle, before, 0)
            os.ftruncate(handle, len(before))
            raise
        os.ftruncate(handle, len(data))
        os.fsync(handle)
    finally:
        os.close(handle)
