"""The figures in the repository are the ones that its logs give, with nothing but what a clone holds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("Running-Results")
STUDIES = RESULTS / "studies"  # apart from result/, where a clone's own runs of the same names go


# All are redrawn; CI does the one with a declaration on a pretrained model, and the largest.
IN_CI = {"smollm135m_largest", "tiny_arith_paper"}
WITH_RUNS = [
    pytest.param(path.parent.name, marks=[] if path.parent.name in IN_CI else pytest.mark.long)
    for path in sorted((ROOT / STUDIES).glob("*/result"))
]
drawn_alike = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the figures were drawn with the matplotlib of Python 3.11 and later"
)


@pytest.fixture(params=WITH_RUNS)
def clone(request, tmp_path):
    """The study's folder, and one with nothing but the runs and the declaration that a clone holds of it."""
    study = ROOT / STUDIES / request.param
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", str(study)], capture_output=True, text=True, check=True)
    for path in map(Path, listed.stdout.splitlines()):
        if path.name == "frozen.yaml" or path.parent.name == "result":
            target = tmp_path / path.relative_to(STUDIES / request.param)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target)
    assert (tmp_path / "result").is_dir(), f"{study} holds no committed results"
    return study, tmp_path


def run(script: str, *arguments: object) -> None:
    done = subprocess.run(["bash", str(ROOT / RESULTS / script), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@drawn_alike
def test_the_committed_runs_give_the_committed_figures(clone):
    study, folder = clone
    # The pdf, for print, are a minute away.
    run("make_figures.sh", "--formats", "png", "--result", folder / "result", "--figure", folder / "Figure")
    figures = {path.name: path for path in (study / "Figure").iterdir()}
    for name, path in figures.items():  # of a large study some of those that are drawn are left out
        assert (folder / "Figure" / name).read_bytes() == path.read_bytes(), f"{name}: redraw it with make_figures.sh"
    assert {"table.csv", "table.md"} <= set(figures)


@drawn_alike
def test_the_committed_runs_give_the_committed_report(clone):
    study, folder = clone
    run("report.sh", "--result", folder / "result", "--out", folder / "report.html")
    assert (folder / "report.html").read_bytes() == (study / "report.html").read_bytes(), "write it anew with report.sh"
