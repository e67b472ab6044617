"""Draws train against test: learning or generalisation; --help says more."""

import sys

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["generalisation"]))
