"""Command line of the speed benchmark: see the package's docstring."""

import argparse
import sys
import time
from pathlib import Path

from tests.benchmarks.speed import driver, table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.benchmarks.speed", description="Our step against its floor and its peers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure what is missing of a row, then print its table")
    run.add_argument("--row", choices=driver.ROWS, nargs="+", default=list(driver.ROWS))
    run.add_argument("--only", choices=driver.CONTENDERS, nargs="+", default=list(driver.CONTENDERS))
    run.add_argument("--again", choices=driver.CONTENDERS, nargs="+", default=[], help="measure these anew")
    run.add_argument(
        "--calm",
        type=float,
        default=1.0,
        help="stop, and measure anew, where other processes take more than this share of the cores (%(default)s: never)",
    )
    run.add_argument("--rounds", type=int, default=2, help="times that every contender is started (%(default)s)")
    run.add_argument("--steps", type=int, default=3, help="timed steps a start, after one that warms up (%(default)s)")
    run.add_argument("--minutes", type=float, default=1e9, help="start nothing more after this long")
    run.add_argument("--before", help="a commit: measure our product as it was then, too")
    run.add_argument("--trl", type=Path, help="the python of an environment with trl (peers.py says how to make one)")
    show = commands.add_parser("table", help="print the tables of what is kept")
    show.add_argument("--row", choices=driver.ROWS, nargs="+", default=list(driver.ROWS))
    options = parser.parse_args()
    if options.command == "run":
        end = time.monotonic() + 60 * options.minutes
        plan = driver.Plan(options.only, options.rounds, options.steps, end, options.calm, options.before, options.trl)
    for row in options.row:
        if options.command != "run" and not driver.results_file(row).is_file():
            continue
        if options.command == "run":
            if driver.results_file(row).is_file():
                driver.forget(row, options.again, options.calm)
            driver.run_row(row, plan)
        sys.stdout.write(table.row_table(driver.load(row)) + "\n\n")


if __name__ == "__main__":
    main()
