"""Pack runs into a study that git can hold: `python -m Verl.analysis.runs.pack RESULT [RESULT ...] STUDY`.

`STUDY/result` then holds two files (`Verl.analysis.runs.packed`) in place of several per run, and every reader (figures,
table, report, sample viewer) takes that folder as it takes a loose one. Of the evaluations the first and the last of each run
are kept, which is what the comparisons use: with texts, without token ids, log-probabilities to a tenth. Of the metrics
timings are kept to four digits. Checkpoints and training samples stay out, and the console's log, which repeats the metrics
among paths of the machine. Of a study of many seeds `--answers-of SEED ...` keeps texts, lengths and log-probabilities of
these seeds alone, and of the others the scores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from Verl.analysis.runs import packed
from Verl.analysis.runs.identical import is_timing
from Verl.analysis.runs.run_file import parse_name
from Verl.errors import UserError
from Verl.files import write_atomic

MOST_FILES, MOST_BYTES = 60, 5_000_000  # of one committed study, with its figures and report
_TEXTS = ("*.jsonl", "*.log", "*/run.json", "*/config.yaml")
_LEFT_OUT = {"tokens"}
_OF_ANSWERS = {"text", "response_length", "log_prob"}


def pack(
    results: Path | Sequence[Path],
    study_dir: Path,
    every_evaluation: bool = False,
    answers_of: Collection[int] | None = None,
    only: Collection[str] | None = None,
) -> tuple[int, int]:
    """Write `study_dir/result`; returns how many files the study now has and how many bytes they take.

    Args:
        results: a result folder, or several, loose or packed, whose runs are to stand side by side.
        answers_of: the seeds whose answers are kept besides their scores; None: all.
        only: the runs to pack; None: all that are there.

    Raises:
        UserError: there is no run in a folder, or one of a name in two of them.
    """
    folders = [results] if isinstance(results, Path) else list(results)
    texts: dict[str, Path] = {}
    evaluations = []
    for folder in folders:
        own = {name: path for name, path in _texts(folder).items() if only is None or packed.run_of(name) in only}
        if all("/" in name for name in own):
            raise UserError(f"no run found in {folder}: nothing to pack")
        twice = sorted(own.keys() & texts.keys())
        if twice:
            raise UserError(f"the run {packed.run_of(twice[0])} is in {folder} and in a folder before it: pack one of them")
        texts |= own
        for run in sorted(set(map(packed.run_of, own))):
            files = packed.find_evaluations(folder / run)
            chosen = files if every_evaluation or len(files) < 2 else [files[0], files[-1]]
            evaluations += [_labelled(path, run, answers_of) for path in chosen]
    target = study_dir / "result"
    names = sorted(texts, key=lambda name: (packed.run_of(name), name))
    contents = pa.array([lean(name, packed.read_bytes(texts[name])) for name in names], pa.large_binary())
    write_atomic(target / packed.RUNS, _encode(pa.table({"name": names, "content": contents}), use_dictionary=False))
    if evaluations:
        table = _without_twins(pa.concat_tables(evaluations, promote_options="default"))
        # Questions come in the order of their numbers: their steps compress to a seventh of what a dictionary takes.
        by_steps = {"index"} & set(table.column_names)
        options = {"use_dictionary": [name for name in table.column_names if name not in by_steps]}
        encoded = _encode(table, **options, column_encoding=dict.fromkeys(by_steps, "DELTA_BINARY_PACKED"))
        write_atomic(target / packed.EVALUATIONS, encoded)
    files = [path for path in study_dir.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def runs_of_study(results: Sequence[Path], name: str) -> set[str]:
    """The runs of the study runner's table of states (`run_study.sh --name`). Raises UserError if no folder has it."""
    for folder in results:
        path = folder / f"study_{name}.json"
        if path.is_file():
            return {one["run"] for one in json.loads(path.read_text())["runs"]}
    raise UserError(f"--study {name}: study_{name}.json is in none of {', '.join(map(str, results))}")


def _texts(folder: Path) -> dict[str, Path]:
    """By name; without the console's log of a run whose metrics are in a jsonl (a run of verl's own may have nothing else)."""
    found = {path.relative_to(folder).as_posix(): path for pattern in _TEXTS for path in packed.find(folder, pattern)}
    return {name: path for name, path in found.items() if not (name.endswith(".log") and f"{Path(name).stem}.jsonl" in found)}


def lean(name: str, content: bytes) -> bytes:
    """What is packed of a file: all of it, but of a jsonl its timings to four digits.

    They are half of what does not compress, and never the same twice.
    """
    return b"".join(map(_lean_line, content.splitlines(keepends=True))) if name.endswith(".jsonl") else content


def _lean_line(line: bytes) -> bytes:
    try:
        record = json.loads(line)
    except ValueError:  # cut in its middle
        return line
    if not isinstance(record, dict) or json.dumps(record).encode() != line.rstrip(b"\n"):
        return line  # not written by a run of ours
    timings = {
        key: float(f"{value:.4g}")
        for key, value in record.items()
        if is_timing(key) and isinstance(value, float) and not key.startswith("ledger/")  # a sum, and an axis of figures
    }
    return json.dumps({**record, **timings}).encode() + line[len(line.rstrip(b"\n")) :]


def _labelled(path: Path, run: str, answers_of: Collection[int] | None) -> pa.Table:
    rows = packed.read_rows(path, [name for name in packed.column_names(path) if name not in _LEFT_OUT])
    if answers_of is not None and (parse_name(run) or {}).get("seed") not in answers_of:
        rows = rows.drop_columns([name for name in rows.column_names if name in _OF_ANSWERS])
    if "log_prob" in rows.column_names:  # as the viewer shows them: to the last bit they would be half of the file
        tenths = pc.round(rows["log_prob"], ndigits=1)
        rows = rows.set_column(rows.column_names.index("log_prob"), "log_prob", tenths)
    steps = pa.array([int(path.stem.removeprefix("step_"))] * len(rows), pa.int64())
    rows = rows.drop_columns(["step"]) if "step" in rows.column_names else rows
    return rows.append_column("step", steps).append_column("run", pa.array([run] * len(rows)))


def _without_twins(table: pa.Table) -> pa.Table:
    """The table with one of the columns that are equal throughout; `packed` reads them all."""
    stored_as: dict[str, str] = {}
    for name in table.column_names:
        stored_as[name] = next((one for one in stored_as.values() if table[one].equals(table[name])), name)
    kept = table.select(list(dict.fromkeys(stored_as.values())))
    return kept.replace_schema_metadata({packed.COLUMNS: json.dumps(stored_as)})


def _encode(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    # One row group: what runs have in common is stored once.
    pq.write_table(table, sink, compression="brotli", compression_level=11, row_group_size=len(table) or 1, **options)
    return sink.getvalue().to_pybytes()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m Verl.analysis.runs.pack", description=__doc__.split("\n")[0])
    parser.add_argument(
        "result", type=Path, nargs="+",
        help="folder of the runs' jsonl, as in Running-Results/result; of several the runs together",
    )  # fmt: skip
    parser.add_argument("study", type=Path, help="folder of the study, as in Running-Results/studies/<name>")
    parser.add_argument("--study", dest="name", metavar="NAME", help="only the runs of run_study.sh --name NAME")
    parser.add_argument("--every-evaluation", action="store_true", help="not only each run's first and last")
    parser.add_argument(
        "--answers-of", type=int, nargs="+", metavar="SEED", help="keep the answers of these seeds, of the others their scores"
    )
    options = parser.parse_args(arguments)
    try:
        only = runs_of_study(options.result, options.name) if options.name else None
        files, size = pack(options.result, options.study, options.every_evaluation, options.answers_of, only)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.study}: {files} files, {size / 1e6:.1f} MB")
    if files > MOST_FILES or size > MOST_BYTES:
        print(f"warning: more than the {MOST_FILES} files or {MOST_BYTES / 1e6:.0f} MB that a committed study may have")
    return 0


if __name__ == "__main__":
    sys.exit(main())
