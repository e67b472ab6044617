"""Prepare GSM8K into data/ beside this script. `--help` lists the options; Dataset/README.md says what comes out."""

import sys
from pathlib import Path

from Verl.data.gsm8k import GSM8K
from Verl.data.prepare import main

if __name__ == "__main__":
    sys.exit(main(GSM8K, Path(__file__).resolve().parent / "data"))
