"""Draws the factor "signal" of Running-Bash/study.yaml; --help says more."""

# Written by Running-Bash/generate_scripts.py: one for each factor of study.yaml.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["signal"]))
