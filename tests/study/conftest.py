"""A folder of scripts to change, and a trainer that takes no time."""

import shutil
import sys
from pathlib import Path

import pytest

from Verl.design import declared as design

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")


@pytest.fixture(scope="session")
def study() -> design.Study:
    return design.load()


@pytest.fixture
def bash_folder(tmp_path: Path) -> Path:
    """A copy of Running-Bash, with the plot scripts beside it, for a researcher to change."""
    folder, plots = tmp_path / "Running-Bash", tmp_path / "Running-Results"
    shutil.copytree(design.BASH, folder, ignore=shutil.ignore_patterns("__pycache__"))
    plots.mkdir()
    for path in (design.BASH.parent / plots.name).glob("plot_*.py"):
        shutil.copy(path, plots)
    return folder


@pytest.fixture
def fake() -> list[str]:
    return [sys.executable, str(FAKE_TRAINER)]
