"""Read a result folder, loose as its runs left it or packed as a study is committed (`Verl.analysis.runs.pack`).

A packed folder holds two files:

- `runs.parquet`: columns `name` (path in the folder) and `content` of every jsonl, run.json and config.yaml (of a log
  where there is no jsonl), byte for byte but for timings, which keep four digits;
- `evaluations.parquet`: the rows of every `<run>/evaluations/step_<k>.parquet`, with a column `run`; of columns that are equal
  throughout, as scoring rules often are, one is stored, and the file's metadata say which (`COLUMNS`).

Paths stay those of the loose files, so callers need not know which it is. A loose file counts before a packed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RUNS, EVALUATIONS = "runs.parquet", "evaluations.parquet"
COLUMNS = b"columns"  # key in the file's metadata: JSON, of each column, in order, the one it is stored as
Stamp = tuple[int, ...]


def find(result_dir: Path, pattern: str) -> list[Path]:
    """The files of a result folder that match a pattern of as many parts (`*.jsonl`, `*/run.json`), in order."""
    depth = len(PurePosixPath(pattern).parts)
    names = [PurePosixPath(name) for name in contents(result_dir)]
    packed = {result_dir / name for name in names if len(name.parts) == depth and name.match(pattern)}
    return sorted(packed | set(result_dir.glob(pattern)))


def contents(result_dir: Path) -> Mapping[str, bytes]:
    """The packed files of a result folder by their path in it; empty if it is not packed."""
    path = result_dir / RUNS
    return _read_contents(path, stamp(path)) if path.is_file() else {}


def run_of(name: str) -> str:
    """The run that a file of a result folder belongs to: `<run>.jsonl`, `<run>/run.json`."""
    return PurePosixPath(name).parts[0] if "/" in name else PurePosixPath(name).stem


def exists(path: Path) -> bool:
    """Whether a log, run.json or config.yaml is there."""
    return path.exists() or _packed_content(path) is not None


def read_bytes(path: Path) -> bytes:
    """A log, run.json or config.yaml. Raises OSError if it is neither loose nor packed."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        content = _packed_content(path)
        if content is None:
            raise
        return content


def read_text(path: Path) -> str:
    """The same as text, with a mark for what is not UTF-8."""
    return read_bytes(path).decode(errors="replace")


def find_evaluations(run_dir: Path) -> list[Path]:
    """`<run>/evaluations/step_<k>.parquet` of one run."""
    home = run_dir.parent / EVALUATIONS
    steps = _packed_steps(home, stamp(home)).get(run_dir.name, ()) if home.is_file() else ()
    packed = {run_dir / "evaluations" / f"step_{step:06d}.parquet" for step in steps}
    return sorted(packed | set((run_dir / "evaluations").glob("*.parquet")))


def stamp(path: Path) -> Stamp:
    """What changes when a file of evaluations is exchanged."""
    now = (path if path.exists() else _home(path)).stat()
    return now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def column_names(path: Path) -> list[str]:
    """The columns of one file of evaluations or samples. Of a packed one those that hold a value."""
    if path.exists():
        return pq.read_schema(path).names
    rows = _rows(path, None)
    return [name for name in rows.column_names if name != "run" and rows[name].null_count < len(rows)]


def read_rows(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of one file of evaluations or samples, rows in their order."""
    return pq.read_table(path, columns=list(columns)) if path.exists() else _rows(path, columns)


def _rows(path: Path, columns: Sequence[str] | None) -> pa.Table:
    """Columns, or all, of one packed file of evaluations."""
    home = _home(path)
    whole = _read_evaluations(home, stamp(home))
    run, step = path.parents[1].name, int(path.stem.removeprefix("step_"))
    wanted = pc.and_(pc.equal(whole["run"], run), pc.equal(whole["step"], step))
    return (whole if columns is None else whole.select(list(columns))).filter(wanted)


def _home(path: Path) -> Path:
    return path.parents[2] / EVALUATIONS


def _packed_content(path: Path) -> bytes | None:
    for folder in (path.parent, path.parent.parent):
        content = contents(folder).get(path.relative_to(folder).as_posix())
        if content is not None:
            return content
    return None


@lru_cache(maxsize=4)
def _read_contents(path: Path, version: Stamp) -> Mapping[str, bytes]:
    table = pq.read_table(path)
    return dict(zip(table["name"].to_pylist(), table["content"].to_pylist()))


@lru_cache(maxsize=2)
def _read_evaluations(path: Path, version: Stamp) -> pa.Table:
    table = pq.read_table(path)
    stored_as = json.loads((table.schema.metadata or {}).get(COLUMNS, b"null")) or {name: name for name in table.column_names}
    return pa.table({name: table[stored] for name, stored in stored_as.items()})


@lru_cache(maxsize=4)
def _packed_steps(path: Path, version: Stamp) -> Mapping[str, set[int]]:
    pairs = _read_evaluations(path, version).group_by(["run", "step"]).aggregate([])
    steps: dict[str, set[int]] = {}
    for run, step in zip(pairs["run"].to_pylist(), pairs["step"].to_pylist()):
        steps.setdefault(run, set()).add(step)
    return steps
