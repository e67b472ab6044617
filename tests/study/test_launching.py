"""The scripts where they are started otherwise than on their authors' machines: by sh, with an exported CDPATH, edited on
Windows, from a folder of any name, with a PYTHONPATH that would replace packages, and a home that can't be written to.

A copy of the scripts' few files with a python that says what it was started with: no set-up, no training. Whole runs under
such conditions: tests/runs/test_ends.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from Verl import REPO_ROOT
from Verl.trainer import settings

SCRIPT = "run_grpo_0032_8_tiny_arith.sh"
READERS = [f"Running-Results/{name}.sh" for name in ("report", "live", "make_figures")]  # which set nothing up
SETTING_UP = [f"Running-Bash/{name}" for name in (SCRIPT, "samples.sh", "eval.sh", "export.sh", "run_study.sh")]
STARTED = [*SETTING_UP, *READERS]
# Beside those that start a command of ours: the exit status with a set-up that is done, and no model or data.
SETUP = "Running-Bash/setup.sh"
OTHERS = {SETUP: 0, "Running-Bash/setup_vllm_cpu.sh": 0, "tests/run.sh": 0, "tests/gpu/check.sh": 0,
          "tests/gpu/bring.sh": 2}  # fmt: skip
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "PYTHONPATH=$PYTHONPATH" "BEHIND=$BANDIT_PYTHONPATH" "HOME=$HOME" "FROM=$BANDIT_CWD" "$@"
"""
NAMES = ["plain", "sp ace", "d$HOME", "amp&ersand", "ü[x],y", "quo'te"]


@pytest.fixture
def copy(tmp_path):
    """Makes a checkout of a given name; every file that a script reads."""

    def make(name: str) -> Path:
        root = tmp_path / name
        python = root / ".venv/bin/python"
        read = [f"Running-Bash/{name}.sh" for name in ("common", "enter", "python")] + ["Running-Results/same_bytes.sh"]
        read += ["pyproject.toml", *(file.name for file in REPO_ROOT.glob("requirements*.txt"))]
        for file in (*STARTED, *OTHERS, *read):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO_ROOT / file, root / file)
        (root / SETUP).write_text("exit 0\n")
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
        return root

    return make


def started(*command: str | Path, shell: str = "bash", folder: Path | None = None, **environment: str):
    kept = {key: value for key, value in os.environ.items() if key not in ("BANDIT_VENV", "PYTHONPATH", "BANDIT_PYTHONPATH")}
    return subprocess.run(
        [shell, *map(str, command)], env=kept | environment, cwd=folder, capture_output=True, text=True, timeout=60
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_may_have_any_name(copy, name):
    root = copy(name)
    done = started(root / "Running-Bash" / SCRIPT, "seed=1")
    assert done.returncode == 0, done.stderr
    assert f"PYTHONPATH={root}" in done.stdout and done.stdout.endswith("@\nseed=1\n")


@pytest.mark.parametrize("script", STARTED)
def test_sh_and_an_exported_cdpath_change_nothing(copy, script):
    root = copy("plain")
    for shell in ("sh", "bash"):
        done = started(script, shell=shell, folder=root, CDPATH=f"{root}:.")
        assert done.returncode == 0 and f"PYTHONPATH={root}\n" in done.stdout, done.stderr


@pytest.mark.parametrize("script, status", OTHERS.items())
def test_nor_do_they_for_scripts_around_them(copy, script, status):
    """Where a script takes another folder for the repository, it finds no files there."""
    root = copy("plain")
    if script == SETUP:
        shutil.copy(REPO_ROOT / script, root / script)
    for shell in ("sh", "bash"):  # with what makes setup.sh stop before it installs
        done = started(script, "--venv", shell=shell, folder=root, CDPATH=f"{root}:.", BANDIT_VENV=str(root / ".venv"))
        assert done.returncode == status and "No such file" not in done.stderr, done.stderr
        assert status == 0 or "are not prepared" in done.stderr


def test_a_script_with_windows_line_ends_says_so(copy):
    root = copy("plain")
    path = root / "Running-Bash" / SCRIPT
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    for shell in ("bash", "sh"):
        done = started(path, shell=shell)
        assert done.returncode == 2 and "line ends" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", [STARTED[0], *READERS])
def test_a_users_pythonpath_goes_behind_the_environments_packages(copy, script):
    root = copy("plain")
    for given in ("/shadow:mine", f"{root}-tools", f"{root}:/shadow", ""):
        done = started(root / script, PYTHONPATH=given)
        assert f"PYTHONPATH={root}\n" in done.stdout and f"BEHIND={given}\n" in done.stdout
    again = started(root / script, PYTHONPATH=f"{root}:{root}", BANDIT_PYTHONPATH="/shadow")  # from a script or a run
    assert "BEHIND=/shadow\n" in again.stdout


def test_what_is_behind_is_found_and_replaces_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/numpy.py").write_text("raise SystemExit('the environment has its own')\n")
    (tmp_path / "mine/only_mine.py").touch()
    done = started(
        "-c", "import Verl, numpy, only_mine, sys; print(sys.path[-1])", shell=sys.executable, folder=tmp_path,
        PYTHONPATH=str(REPO_ROOT), BANDIT_PYTHONPATH="mine", BANDIT_CWD=str(tmp_path),
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "mine"), done.stderr


@pytest.mark.parametrize("script", READERS)
def test_a_numpy_of_the_users_is_not_the_one_that_is_read_with(tmp_path, script):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the environment has its own')\n")
    done = started(REPO_ROOT / script, "--help", PYTHONPATH=str(tmp_path), BANDIT_VENV=sys.prefix)
    assert done.returncode == 0 and "--result" in done.stdout, done.stderr


def test_a_home_that_cant_be_written_to_is_replaced(copy):
    root = copy("plain")
    done = started(root / "Running-Bash" / SCRIPT, HOME="/proc/nowhere")
    assert done.returncode == 0 and f"HOME={root}/.cache/home\n" in done.stdout and "/proc/nowhere" in done.stderr


def test_hydra_reads_its_files_below_a_folder_of_any_name(tmp_path, monkeypatch):
    place = tmp_path / "ü[x], y&z $HOME o'brien"
    place.symlink_to(settings._verl_config_dir())
    expected = settings.defaults("grpo", "cpu")
    monkeypatch.setattr(settings, "_verl_config_dir", lambda: place)
    assert settings.defaults.__wrapped__("grpo", "cpu") == expected


def test_the_hub_is_reached_through_a_socks_proxy(monkeypatch):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("socksio", reason="an environment from before it was among the requirements")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    httpx.Client().close()  # which raised an ImportError


def test_gpus_are_counted_and_hidden_ones_are_none(monkeypatch):
    monkeypatch.setattr(settings.Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0"), Path("/dev/nvidia1")]))
    for visible, count in {"": 0, "-1": 0, "-1,0": 0, "0": 1, "1,0": 2, "GPU-8a1b": 1, "0,-1,1": 1}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert settings.gpus_present() == count and settings.gpu_present() == (count > 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert settings.gpus_present() == 2
    monkeypatch.setattr(settings.Path, "glob", lambda self, pattern: iter([]))
    assert settings.gpus_present() == 0
