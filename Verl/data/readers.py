"""Read published data from local files: jsonl or parquet, named `<split>.*` or as on the Hub.

Rows come out as they are, each knowing its file and row number, so that whoever finds a fault in a field can
name all three. Row numbers in messages count from 1 (in jsonl: the line).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from Verl.data.row_checks import DataError
from Verl.data.schema import MANIFEST

SPLITS = ("train", "test")
_MISSING = object()


@dataclass(frozen=True)
class RawRow:
    """One row as published. `index` is its number from 0 in the whole split, `number` from 1 in its file."""

    file: str
    number: int
    index: int
    values: dict[str, Any]

    def error(self, path: str, what: str) -> DataError:
        return DataError(f"{self.file}: row {self.number}, field {path!r} {what}; correct the row or fetch the file again")

    def get(self, path: str, default: Any = _MISSING) -> Any:
        """The value under a dotted path. Absent and null are the same; an error where no default is given."""
        value: Any = self.values
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return value
        if default is _MISSING:
            raise self.error(path, "is missing")
        return default

    def text(self, path: str, *, may_be_empty: bool = False) -> str:
        """The text under a dotted path."""
        value = self.get(path)
        if not isinstance(value, str):
            raise self.error(path, f"is {type(value).__name__}, not text")
        if not may_be_empty and not value.strip():
            raise self.error(path, "is empty")
        return self.whole(path, value)

    def whole(self, path: str, text: str) -> str:
        r"""The text itself, unless it holds half a character: JSON may spell "\ud800" alone, which no file can hold."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.error(path, "holds half of a character (a surrogate without its partner)") from None
        return text

    @property
    def in_verl_schema(self) -> bool:
        return "prompt" in self.values or "reward_model" in self.values

    def verl_question(self, instruction: str) -> str:
        """The bare question of a row in verl's schema: given as such, or the prompt without its instruction."""
        if self.get("extra_info.question", ""):
            return self.text("extra_info.question")
        messages = self.get("prompt")
        last = messages[-1] if isinstance(messages, list) and messages else None
        content = last.get("content") if isinstance(last, dict) and last.get("role") == "user" else None
        if not isinstance(content, str):
            raise self.error("prompt", "does not end with a user message of text")
        question = content.removesuffix(instruction)
        # Kept whole, a prompt with some other instruction would get ours on top of it.
        if question == content or not question.strip():
            raise self.error("prompt", f"is not a question followed by {instruction.strip()!r}")
        return self.whole("prompt", question)

    def verl_index(self) -> int:
        """The original row number that a row in verl's schema carries, or its place in the file."""
        index = self.get("extra_info.index", self.index)
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise self.error("extra_info.index", f"is {index!r}, not a row number from 0")
        return index


@dataclass(frozen=True)
class RawSplit:
    """A split as published, and where it came from: [{"file": name, "sha256": ...}] (no folders: see the manifest)."""

    rows: list[RawRow]
    origin: list[dict[str, str]] = field(default_factory=list)


def read_files(paths: Sequence[Path]) -> RawSplit:
    """Read the files of one split, in order. Raises DataError for a file that is not what its name says."""
    rows: list[RawRow] = []
    for path in paths:
        try:
            values = list(_read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give a file that can") from error
        if not values:
            raise DataError(f"{path}: the file has no rows; fetch it again")
        rows += [RawRow(str(path), n, len(rows) + n - 1, row) for n, row in enumerate(values, start=1)]
    origin = [{"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths]
    return RawSplit(rows, origin)


def split_of_file(path: Path) -> str:
    """Which split a file holds, by the beginning of its name."""
    for split in SPLITS:
        if path.name.startswith(split):
            return split
    raise DataError(f"{path}: cannot tell the split from the name; call the file train.* or test.*")


def find_split(folders: Sequence[Path], split: str) -> list[Path]:
    """The files of a split in the first folder that has it: `<split>.jsonl`, `<split>.parquet`, or the Hub's shards.

    Each folder is also looked into where the Hub keeps a configuration: main/, data/, default/. Empty: none found.
    """
    for folder in folders:
        for place in (folder, folder / "main", folder / "data", folder / "default"):
            names = (place / f"{split}.jsonl", place / f"{split}.parquet")
            found = [[path] for path in names if path.is_file()]
            if shards := sorted(place.glob(f"{split}-*-of-*.parquet")):
                found.append(_all_shards(shards))
            if len(found) > 1:
                listed = " and ".join(paths[0].name for paths in found)
                raise DataError(f"{place}: holds {listed}; give one of them as the source, or move one away")
            if found:
                _refuse_prepared(place)
                return found[0]
    return []


def _all_shards(shards: list[Path]) -> list[Path]:
    """The Hub's names end in -00000-of-00002: a missing shard would be a silently smaller set."""
    total = int(shards[0].stem.rsplit("-", 1)[1])
    if len(shards) != total:
        raise DataError(f"{shards[0]}: {total} parts by its name, {len(shards)} in the folder; fetch the others")
    return shards


def _refuse_prepared(folder: Path) -> None:
    if (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder}: is a set we prepared (it has a {MANIFEST}), and its train split lacks the validation "
            "questions; give the published files as the source"
        )


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        return pq.ParquetFile(path).read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a whole parquet file ({reason}); fetch it again") from error


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    # Bytes, not str.splitlines: that also splits at U+2028, which is legal inside a JSON string.
    lines = path.read_bytes().rstrip(b"\r\n").split(b"\n")
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            values = json.loads(line)
        except ValueError as error:  # JSON and UTF-8 faults alike
            raise DataError(f"{path}: row {number} is not JSON ({error}); correct the row or fetch it again") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}: row {number} is {type(values).__name__}, not an object with fields; correct the row")
        yield values
