"""Writes the table of start, final, best and marginal gain; --help says more."""

import sys

from Verl.analysis.figures.cli import main

if __name__ == "__main__":
    sys.exit(main(["table"]))
