"""Imports run downwards: the contracts of pyproject.toml, checked by import-linter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("importlinter", reason="import-linter of requirements-common.txt is not installed")

UPWARDS = "from Verl.trainer.task_runner import InProcessRunner"


def _lint(folder):
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_packages_import_downwards_only():
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("reward/score.py", "from Verl.trainer import settings"),
        ("trainer/console.py", "def late():\n    from Verl.analysis import stats"),
        ("statistics/seeds.py", "from Verl.errors import UserError"),
        ("trainer/run_log.py", f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {UPWARDS}"),
        ("newcomer/__init__.py", ""),  # a package without a place in the order
    ],
)
def test_an_import_upwards_is_found(tmp_path, module, line):
    shutil.copytree(ROOT / "Verl", tmp_path / "Verl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "Verl" / module
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as file:
        file.write(f"\n{line}\n")
    assert _lint(tmp_path).returncode == 1
