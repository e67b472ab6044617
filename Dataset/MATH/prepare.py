"""Prepare MATH into data/ beside this script. `--help` lists the options; Dataset/README.md says what comes out."""

import sys
from pathlib import Path

from Verl.data.hendrycks_math import MATH
from Verl.data.prepare import main

if __name__ == "__main__":
    sys.exit(main(MATH, Path(__file__).resolve().parent / "data"))
