"""The figures in the repository are the ones that its logs give, with nothing but what a clone holds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("Running-Results")
STUDIES = RESULTS / "studies"  # apart from result/, where a clone's own runs of the same names go


def _committed(study, folder):
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", str(STUDIES / study / folder)], capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines()] if listed.returncode == 0 else []


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the figures were drawn with the matplotlib of Python 3.11 and later"
)
@pytest.mark.parametrize("study", ["tiny_arith", "smollm135m_largest"])
def test_the_committed_logs_give_the_committed_figures(tmp_path, study):
    figures = {path.name: path for path in _committed(study, "Figure")}
    logs = _committed(study, "result")
    assert figures and logs, f"{study} holds no committed results"
    for path in logs:
        target = tmp_path / path.relative_to(ROOT / STUDIES / study)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [
        "bash",
        ROOT / RESULTS / "make_figures.sh",
        "--formats",
        "png",  # the pdf, for print, are a minute away
        "--result",
        tmp_path / "result",
        "--figure",
        tmp_path / "Figure",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn = {path.name: path for path in (tmp_path / "Figure").iterdir()}
    for name, path in figures.items():
        if name in drawn:  # figures of single runs lie beside those of the study
            assert drawn[name].read_bytes() == path.read_bytes(), (
                f"{name}: redraw it with Running-Results/make_figures.sh"
            )
    assert "table.csv" in figures and set(drawn) <= set(figures)
