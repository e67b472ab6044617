"""Draws the factor "controls_barest" of Running-Bash/study.yaml; --help says more."""

# Written by Running-Bash/generate_scripts.py: one for each factor of study.yaml.
import sys

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["controls_barest"]))
