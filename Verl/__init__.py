"""Bandit reinforcement fine-tuning: what differs from verl 0.9.1, and nothing else."""

import os
import sys
from pathlib import Path

# numpy's linear algebra in one thread: our arrays are small, and a second thread that waits by spinning made the statistics
# six times as slow beside another job. One thread also adds in one order, whatever the number of cores. torch has its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# OpenMP's threads (torch's) sleep after a short spin. By default they spin on, and beside any other work hold the cores that
# the others would compute on: a step of 1 s took 16. Asleep at once, a step alone takes a quarter longer (docs/speed.md).
if not os.environ.get("OMP_WAIT_POLICY"):
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

REPO_ROOT = Path(__file__).resolve().parents[1]
RESULT_DIR = REPO_ROOT / "Running-Results" / "result"
FIGURE_DIR = REPO_ROOT / "Running-Results" / "Figure"


def _behind(folders: str, began_in: str) -> None:
    """Append the folders of a PYTHONPATH to the module search path: found there is what the environment does not have."""
    for folder in filter(None, folders.split(os.pathsep)):
        place = os.path.join(began_in, folder)
        if place not in sys.path:
            sys.path.append(place)


_behind(os.environ.get("BANDIT_PYTHONPATH", ""), os.environ.get("BANDIT_CWD", ""))
