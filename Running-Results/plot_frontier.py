"""Draws the iso-compute frontier; --help says more."""

import sys

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["frontier"]))
