"""Draws the question "replay" of Verl/analysis/verdicts/questions.py; --help says more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["replay"]))
