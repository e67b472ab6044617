"""A checkout that one can read and not write: what is there is used, what is not says so in one sentence."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from Verl.base_models.publish import build_once

# Everything is imported as oneself: the other user may not be able to read this machine's packages.
PROGRAM = """
import os, sys
from pathlib import Path
from Verl.base_models.publish import build_once
from Verl.errors import UserError
from Verl.files import is_locked, locked
folder = Path(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
print(build_once(folder / "model", {"seed": 0}, None)[1])
for make in (lambda: build_once(folder / "model", {"seed": 1}, None), lambda: locked(folder / "new/x.lock", "busy").__enter__(),
             lambda: locked(folder / "private.lock", "busy").__enter__()):
    try:
        make()
    except UserError as error:
        print("refused:", error)
with locked(folder / "left.lock", "busy"):
    print("held", is_locked(folder / "left.lock"))
"""


@pytest.fixture
def checkout():
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_what_is_there_is_used_and_what_is_not_says_so(checkout):
    def build(folder: Path) -> dict:
        (folder / "weights").touch()
        return {}

    build_once(checkout / "model", {"seed": 0}, build)
    for name, mode in (("left.lock", 0o644), ("private.lock", 0o600 if os.getuid() == 0 else 0o000)):
        (checkout / name).touch()  # as a kill leaves them
        (checkout / name).chmod(mode)
    checkout.chmod(0o555 if os.getuid() else 0o755)  # its owner is root, or may not write either
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(checkout)], capture_output=True, text=True)
    there, *refused, held = done.stdout.splitlines()
    assert there == "False", done.stderr  # not built anew
    assert len(refused) == 3 and all(str(checkout) in line for line in refused), done.stdout + done.stderr
    assert held == "held True"
