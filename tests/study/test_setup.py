"""setup.sh: uv where it is there, pip otherwise, the same pins; it says what goes on, and what failed.

With stand-ins for python, pip and uv that write down what they are asked for: an installation takes minutes and a network.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from Verl import REPO_ROOT

PYTHON = """#!/usr/bin/env bash
case "$*" in
"-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
*"-r "*) echo "pip $*" >>"$CALLS"; echo "Collecting torch"; sleep "$TAKES"; exit "$STATUS" ;;
"-m pip"*) echo "pip $*" >>"$CALLS" ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
if [[ $1 == pip ]]; then exit "${UV_STATUS:-0}"; fi
if [[ $1 == venv ]]; then mkdir -p "${@: -1}/bin" && cp "$(dirname "$0")/python3.11" "${@: -1}/bin/python"; fi
"""


@pytest.fixture
def machine(tmp_path):
    """Runs setup.sh in a copy of the few files that it reads."""
    root, bin_folder = tmp_path / "repo", tmp_path / "bin"
    (root / "Running-Bash").mkdir(parents=True)
    bin_folder.mkdir()
    shutil.copy(REPO_ROOT / "Running-Bash/setup.sh", root / "Running-Bash")
    for name in ("requirements.txt", "requirements-common.txt", "requirements-gpu.txt", "pyproject.toml"):
        shutil.copy(REPO_ROOT / name, root)

    def run(uv: bool, takes: float = 0, status: int = 0, uv_status: int = 0):
        for name, text in {"python3.11": PYTHON, **({"uv": UV} if uv else {})}.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        system = [Path(folder) for folder in ("/usr/bin", "/bin") if Path(folder).is_dir()]
        if not uv and any((folder / "uv").exists() for folder in system):
            pytest.skip("uv is part of this system")
        environment = {"PATH": os.pathsep.join(map(str, [bin_folder, *system])), "CALLS": str(tmp_path / "calls"),
                       "TAKES": str(takes), "STATUS": str(status), "BANDIT_SETUP_SECONDS": "1",
                       "UV_STATUS": str(uv_status),
                       "HOME": str(tmp_path)}  # fmt: skip
        command = ["bash", str(root / "Running-Bash/setup.sh"), "--cpu"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done, calls

    return run


@pytest.mark.parametrize("uv", [True, False])
def test_the_same_pins_by_uv_or_by_pip(machine, uv):
    done, calls = machine(uv)
    assert done.returncode == 0, done.stderr
    wanted = [call for call in calls if "requirements.txt" in call]
    assert len(wanted) == 1 and wanted[0].startswith("uv pip install" if uv else "pip -m pip install")
    assert calls[-1].split()[0] == ("uv" if uv else "pip") and " -e " in calls[-1]
    again, more = machine(uv)
    assert again.returncode == 0 and more == calls and not again.stderr  # done is done


def test_where_uv_finds_no_packages_pip_may(machine):
    done, calls = machine(uv=True, uv_status=1)
    assert done.returncode == 0 and calls[-1].startswith("pip -m pip install") and " -e " in calls[-1]


def test_it_says_what_goes_on_and_what_comes_next(machine):
    done, _ = machine(uv=False, takes=2.5)
    first, *lines = done.stderr.splitlines()
    assert "to download" in first and "minutes" in first
    assert any("packages: " in line and "MB so far; Collecting torch" in line for line in lines)
    assert lines[-1].startswith("set-up done")


def test_a_failure_shows_the_reason_and_is_tried_again(machine):
    done, _ = machine(uv=False, status=1)
    assert done.returncode == 2 and "Collecting torch" in done.stderr and "error: the packages" in done.stderr
    again, _ = machine(uv=False)
    assert again.returncode == 0
