"""Generate the arithmetic data set into data/ beside this script (seconds, no network). `--help` lists the options."""

import argparse
import sys
from pathlib import Path

from Verl.data.arithmetic import SPLIT_SIZES, prepare

if __name__ == "__main__":
    default_out = Path(__file__).resolve().parent / "data"
    parser = argparse.ArgumentParser(description="Generate chain sums: parquet files in verl's row schema.")
    parser.add_argument("--out", type=Path, default=default_out, help=f"folder to write (default {default_out})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the questions, from 0 up (default 0)")
    for split, size in SPLIT_SIZES.items():
        parser.add_argument(f"--{split}-size", type=int, default=size, help=f"questions in {split} (default {size})")
    options = parser.parse_args()
    try:
        sizes = {split: getattr(options, f"{split}_size") for split in SPLIT_SIZES}
        counts = prepare(options.out, options.seed, sizes)
    except ValueError as error:
        parser.error(str(error))  # exit status 2
    for split, count in counts.items():
        sys.stdout.write(f"{split}: {count} rows written\n")
    sys.stdout.write(f"written to {options.out}\n")
