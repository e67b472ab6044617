"""The one row schema of all data sets, how a set is written, and how it is checked before a run.

A row is verl's (verl 0.9.1, `verl/utils/dataset/rl_dataset.py` and `examples/data_preprocess/gsm8k.py`):

    data_source   str     which scorer (`sources.py`)
    prompt        [{"role": "user", "content": str}], after further turns if there are any
    ability       str     "math", "arithmetic", ...
    reward_model  {"style": "rule", "ground_truth": str}
    extra_info    {split, index, question, answer, level, subject}

`extra_info.index` is the question's identity: the row number (from 0) in the ORIGINAL source split, before
anything was dropped. Histories and the sorting of a batch key on (data_source, index), so it never repeats
in a file. `extra_info.answer` is the reference solution as published, "" where the source has none.

A set is a folder: `<split>.parquet` per split, and `manifest.json`, which is removed first and written last; in
between, the file `.unfinished` says so. No manifest, or one that disagrees with the files: no set. A run takes no
file from a folder that is unfinished. Row numbers in messages are counted from 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from Verl import REPO_ROOT
from Verl.data.row_checks import DataError, check_table
from Verl.files import TEMPORARY, locked, write_atomic

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
SCRIPT = "prepare.py"  # beside the folder of a set: what prepares it

_TEXT = pa.string()
PARQUET_SCHEMA = pa.schema(
    {
        "data_source": _TEXT,
        "prompt": pa.list_(pa.struct({"role": _TEXT, "content": _TEXT})),
        "ability": _TEXT,
        "reward_model": pa.struct({"style": _TEXT, "ground_truth": _TEXT}),
        "extra_info": pa.struct(
            {
                "split": _TEXT,
                "index": pa.int64(),
                "question": _TEXT,
                "answer": _TEXT,
                "level": _TEXT,
                "subject": _TEXT,
            }
        ),
    }
)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def make_row(
    *,
    data_source: str,
    question: str,
    prompt: str,
    ability: str,
    ground_truth: str,
    split: str,
    index: int,
    answer: str,
    level: str = "",
    subject: str = "",
    examples: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """One row of the schema. `question` is the bare text, `prompt` what the model is shown, after `examples`: other prompts,
    each with its answer, as earlier turns of the conversation.

    Raises DataError for a value of the wrong type and for an empty question, prompt or ground truth: a scorer
    can give such a row nothing but noise. Level and subject are text ("Level 5", "Algebra") or "".
    """
    texts = {
        "data_source": data_source,
        "question": question,
        "prompt": prompt,
        "ability": ability,
        "ground_truth": ground_truth,
        "split": split,
        "answer": answer,
        "level": level,
        "subject": subject,
    }
    for name, value in texts.items():
        if not isinstance(value, str):
            raise DataError(f"field {name!r} is {type(value).__name__}, not text")
    for name in ("data_source", "question", "prompt", "ground_truth", "split"):
        if not texts[name].strip():
            raise DataError(f"field {name!r} is empty")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise DataError(f"field 'index' is {index!r}, not a row number from 0")
    return {
        "data_source": data_source,
        "prompt": [
            *(turn for asked, said in examples for turn in (_turn("user", asked), _turn("assistant", said))),
            _turn("user", prompt),
        ],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            "split": split,
            "index": index,
            "question": question,
            "answer": answer,
            "level": level,
            "subject": subject,
        },
    }


def normalise_question(text: str) -> str:
    """The key by which two questions are the same: letter case and white space do not count.

    Between two digits white space stays, as one blank ("1 23" is not "12 3"). Nothing else is removed, so "x+1"
    and "x-1" stay apart. MATH has a bolder key of its own for LaTeX (`hendrycks_math.latex_key`).
    """
    text = unicodedata.normalize("NFC", text).casefold().strip()
    return re.sub(r"(?<!\d)\s+|\s+(?!\d|\s)", "", re.sub(r"\s+", " ", text))


def write_split_set(
    out_dir: str | Path,
    splits: dict[str, list[dict[str, Any]]],
    *,
    source: str,
    settings: dict[str, Any],
    recipe: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `splits` ({"train": rows, ...}) as a set into `out_dir` and return its manifest.

    Everything is checked and encoded before the folder is touched, so a refused set leaves the old one in place.
    The same arguments give the same bytes: keep clocks, machine paths and host names out of `source`, `settings` and
    `recipe`, which go into the manifest. By the recipe a set is known that the code would now make otherwise
    (`Verl.data.recipe`); default: the script beside the folder, where there is one. Raises DataError; a question
    (normalised) in two splits is one, a folder that can't be written to another.
    """
    _check_splits(splits)
    blobs = {f"{name}.parquet": _encode(rows, f"{name}.parquet", name) for name, rows in splits.items()}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "settings": settings,
        "splits": {
            name: {
                "file": f"{name}.parquet",
                "rows": len(rows),
                "bytes": len(blobs[f"{name}.parquet"]),
                "sha256": hashlib.sha256(blobs[f"{name}.parquet"]).hexdigest(),
            }
            for name, rows in splits.items()
        },
    }
    if recipe := recipe or script_recipe(Path(out_dir)):
        manifest["recipe"] = recipe
    manifest_bytes = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    try:
        _write_set(Path(out_dir), blobs, manifest_bytes)
    except OSError as error:
        raise DataError(
            f"{out_dir}: cannot be written to ({error.strerror}); give another folder with --out, or free some space"
        ) from error
    return manifest


def _write_set(folder: Path, blobs: dict[str, bytes], manifest: bytes) -> None:
    """The files, then the manifest; in between the folder says that it is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # a sweep may start several prepares at once
        for left in folder.glob(f".*{TEMPORARY}"):  # by a writer that was killed
            left.unlink()
        stale = _files_of(folder) - set(blobs)
        _write(folder / UNFINISHED, b"")
        (folder / MANIFEST).unlink(missing_ok=True)
        _sync_folder(folder)
        for name, blob in blobs.items():
            _write(folder / name, blob)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        _write(folder / MANIFEST, manifest)
        (folder / UNFINISHED).unlink()


def check_parquet(path: str | Path, *, known_data_sources: Collection[str] | None) -> int:
    """Check a file before Ray starts and return its number of rows (10,000 rows take some hundredths of a second).

    Raises DataError, one sentence with file, row, field and what to do: no file, not parquet, no rows, a column or
    field missing or of the wrong type, an empty value, an index that repeats, a `data_source` outside
    `known_data_sources` (None: any, for a custom reward function), a file of a set that was not written to the end
    or that its manifest does not describe. Also takes verl files we did not write, as long as they carry
    data_source, prompt, reward_model.{style, ground_truth}, extra_info.{split, index}.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; {how_to_prepare(path.parent)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); {how_to_prepare(path.parent)}")
    try:
        table = pq.ParquetFile(path).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a whole parquet file ({reason}); {how_to_prepare(path.parent)}") from error
    check_table(table, str(path), known_data_sources, remedy=how_to_prepare(path.parent))
    _check_belongs(path)
    return table.num_rows


def _check_belongs(path: Path) -> None:
    """Refuse a file of an unfinished set, old beside new, where a train question may be a test question; and a file
    that is not the one its manifest describes."""
    folder = path.parent
    if (folder / UNFINISHED).exists():
        raise DataError(f"{folder}: the set was not written to the end, or is being written; {how_to_prepare(folder)}")
    if (folder / MANIFEST).is_file() and path.name in _files_of(folder):
        require_prepared(folder)


def require_prepared(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a prepared set, or raise DataError that says which command to run.

    Sizes and hashes are compared each time (milliseconds): it is what tells a whole set from one that a kill,
    a full disk or an editor left behind.
    """
    folder = Path(folder)
    remedy = how_to_prepare(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version, splits = manifest["schema_version"], manifest["splits"]
        expected = [(entry["file"], entry["bytes"], entry["sha256"]) for entry in splits.values()]
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no prepared data set here (no {MANIFEST}); {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST}: not a manifest ({error}); {remedy}") from error
    if version != SCHEMA_VERSION:
        raise DataError(f"{folder / MANIFEST}: schema version {version}, this code reads {SCHEMA_VERSION}; {remedy}")
    for name, size, sha256 in expected:
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: named in {MANIFEST} but missing; {remedy}")
        if path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DataError(f"{path}: differs from the file that {MANIFEST} describes; {remedy}")
    return manifest


def script_recipe(folder: Path) -> dict[str, Any] | None:
    """The recipe of a set whose rows the script beside its folder makes: that script. None where there is none."""
    script = folder.absolute().parent / SCRIPT
    if not script.is_file():
        return None
    return {"maker": SCRIPT, "options": [], "made": {SCRIPT: hashlib.sha256(script.read_bytes()).hexdigest()}}


def how_to_prepare(folder: Path) -> str:
    """What to do about a missing or broken set: the prepare script beside the folder where there is one."""
    script = folder.parent / SCRIPT
    if script.is_file():
        return f"run: python {script} --out {folder}"
    sets = " or ".join(sorted(path.parent.name for path in (REPO_ROOT / "Dataset").glob(f"*/{SCRIPT}")))
    return f"run: python Dataset/<{sets}>/{SCRIPT} --out {folder}"


def _check_splits(splits: dict[str, list[dict[str, Any]]]) -> None:
    """Every split named, filled and labelled as itself, and no question in two of them."""
    if not splits:
        raise DataError("no splits to write")
    seen: dict[str, tuple[str, int]] = {}
    for name, rows in splits.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise DataError(f"split name {name!r} is not a plain word")
        for number, row in enumerate(rows, start=1):
            where = f"split {name!r}, row {number}"
            _check_keys(row, where)
            if row["extra_info"]["split"] != name:
                raise DataError(f"{where}: extra_info.split is {row['extra_info']['split']!r}")
            key = normalise_question(row["extra_info"]["question"])
            other, other_number = seen.setdefault(key, (name, number))
            if other != name:
                raise DataError(f"{where}: the same question is row {other_number} of split {other!r} (a leak)")


def _check_keys(row: dict[str, Any], where: str) -> None:
    """The keys of `make_row` and no other: pyarrow would drop a key it does not know without a word."""
    for name, got in (("", row), ("reward_model", row.get("reward_model")), ("extra_info", row.get("extra_info"))):
        wanted = {field.name for field in (PARQUET_SCHEMA.field(name).type if name else PARQUET_SCHEMA)}
        if not isinstance(got, dict) or set(got) != wanted:
            raise DataError(f"{where}: {name or 'the row'} must have exactly the fields {sorted(wanted)}")


def _encode(rows: list[dict[str, Any]], file: str, split: str) -> bytes:
    """The rows as the bytes of a parquet file."""
    remedy = "build rows with make_row"
    try:
        table = pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA)
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"split {split!r}: a value has the wrong type ({error}); {remedy}") from error
    check_table(table, file, None, remedy=remedy)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _files_of(folder: Path) -> set[str]:
    """The files the set in `folder` consists of by its manifest (none where that is missing or broken)."""
    try:
        entries = json.loads((folder / MANIFEST).read_bytes())["splits"].values()
        return {Path(entry["file"]).name for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _write(path: Path, blob: bytes) -> None:
    """Whole or not at all, also after a power cut: the folder is synced too."""
    write_atomic(path, blob)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
