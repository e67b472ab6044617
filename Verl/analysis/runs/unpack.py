"""Unpack a committed study into a result folder: `python -m Verl.analysis.runs.unpack STUDY RESULT`.

The study's command then finds these runs done, and goes on where it was committed: with more seeds, or on another machine.
Checkpoints, training samples and token ids were not packed: a run that had not finished begins anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from Verl.analysis.runs import packed
from Verl.analysis.runs.pack import lean
from Verl.errors import UserError
from Verl.files import write_atomic


def unpack(study_dir: Path, result_dir: Path) -> list[str]:
    """Write the runs that are not there yet as loose files; returns their names.

    A run's run.json, which says that it is finished, comes last: after a kill in between the same command completes it.

    Raises:
        UserError: there is no packed study, or a run of the same name and other contents is in the result folder.
    """
    source = study_dir / "result" if (study_dir / "result").is_dir() else study_dir
    contents = packed.contents(source)
    if not contents:
        raise UserError(f"{source / packed.RUNS} is not there, or holds no run: give the folder of a packed study")
    for name, content in contents.items():
        path = result_dir / name
        if path.exists() and lean(name, path.read_bytes()) != content:  # it may be the very run that was packed
            raise UserError(f"{path} is there and is not the study's: unpack into another folder, or move it away")
    missing = [name for name in contents if not (result_dir / name).exists()]
    runs = sorted({packed.run_of(name) for name in missing})
    for run in runs:
        for path in packed.find_evaluations(source / run):
            target = result_dir / run / "evaluations" / path.name
            if not target.exists():
                rows = packed.read_rows(path, [name for name in packed.column_names(path) if name != "run"])
                write_atomic(target, _encode(rows))
    for name in sorted(missing, key=lambda name: Path(name).name == "run.json"):
        write_atomic(result_dir / name, contents[name])
    return runs


def _encode(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m Verl.analysis.runs.unpack", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, help="folder of a packed study, as in Running-Results/studies/<name>")
    parser.add_argument("result", type=Path, help="folder for the runs' files, as Running-Results/result")
    options = parser.parse_args(arguments)
    try:
        runs = unpack(options.study, options.result)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(runs)} runs written to {options.result}" if runs else f"{options.result} has every run of {options.study}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
