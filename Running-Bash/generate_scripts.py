#!/usr/bin/env python3
"""Writes run_<arm>_<pair>.sh for every arm that study.yaml declares, Running-Results/plot_<factor>.py for every factor, and
the table of docs/factors.md.

    python Running-Bash/generate_scripts.py            write what differs
    python Running-Bash/generate_scripts.py --check    only say what differs; status 1 if anything does
"""

import argparse
import sys
from pathlib import Path

from Verl.design import declared as design
from Verl.errors import UserError
from Verl.study import scripts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--folder", type=Path, default=design.BASH, help="where study.yaml and the scripts lie")
    options = parser.parse_args(arguments)
    try:
        study = design.load(options.folder / design.DESIGN_FILE.name)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    changed = (scripts.drift if options.check else scripts.write)(study, options.folder)
    for name, what in sorted(changed.items()):
        print(f"{name}: {what}{'' if options.check else ', now as declared'}")
    done = "differ" if options.check else "written or removed"
    print(f"{len(study.scripts)} scripts and {len(study.factors)} factors declared, {len(changed)} files {done}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
