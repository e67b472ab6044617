"""The output folder of an evaluation: what is done survives an interruption, and only whole results have their names.

While it goes on, `<out>/.parts/` holds `identity.json` (what is being evaluated, and how) and one parquet file per
finished batch, each written under another name and renamed. At the end the parts become `responses.parquet`, then
`evaluation.json` is written, then the parts go. So `evaluation.json` is there exactly if the evaluation is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from Verl.errors import UserError
from Verl.files import locked, write_atomic

RESPONSES, EVALUATION = "responses.parquet", "evaluation.json"

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "index": pa.int64(),
        "sample": pa.int64(),
        "greedy": pa.bool_(),
        "ground_truth": pa.string(),
        "text": pa.string(),
        "strict": pa.float64(),
        "flexible": pa.float64(),
        "format": pa.float64(),
        "failure": pa.float64(),
        "timeout": pa.float64(),
        "lenient": pa.float64(),  # null in evaluations from before there was one
        "parts": pa.string(),  # of a user's reward, a JSON object; null where it has none
        "log_prob": pa.float64(),  # of the whole response, at the temperature it was drawn at
        "response_length": pa.int64(),  # in tokens, the end token included
        "stop_reason": pa.string(),  # "completed", or "length" for one that was cut off
        "tokens": pa.list_(pa.int32()),
    }
)


class Store:
    """One output folder."""

    def __init__(self, out: Path, identity: dict[str, Any]):
        self.out, self.identity = Path(out), identity
        self.parts = self.out / ".parts"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others out of the folder. Raises UserError if another process is at it or it can't be written."""
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.out / ".lock", f"--out {self.out}: another evaluation is going on there"))
            except OSError as error:
                raise UserError(f"--out {self.out} can't be written to: {error.strerror}") from None
            yield

    def begin(self) -> dict[str, Any] | None:
        """The finished evaluation of these settings, or None if there is something left to do.

        Raises:
            UserError: the folder holds an evaluation of something else.
        """
        finished = _read_json(self.out / EVALUATION)
        begun = finished.get("identity") if finished else _read_json(self.parts / "identity.json")
        if begun is not None and begun != self.identity:
            changed = sorted(key for key in {*begun, *self.identity} if begun.get(key) != self.identity.get(key))
            raise UserError(
                f"--out {self.out} holds an evaluation with other settings ({', '.join(changed)}): "
                "give another folder, or delete this one"
            )
        if finished and (self.out / RESPONSES).is_file():
            return finished
        if begun is None:
            shutil.rmtree(self.parts, ignore_errors=True)
        write_atomic(self.parts / "identity.json", json.dumps(self.identity, indent=1, sort_keys=True) + "\n")
        return None

    def has(self, batch: int) -> bool:
        return self._part(batch).is_file()

    def add(self, batch: int, rows: list[dict[str, Any]]) -> None:
        """Keeps a finished batch."""
        write_atomic(self._part(batch), encode_table(pa.Table.from_pylist(rows, schema=SCHEMA)))

    def join(self, batches: int) -> list[dict[str, Any]]:
        """Writes all responses, in order, as `responses.parquet`; returns them without their tokens."""
        # One table from plain rows: the same bytes however the parts came about.
        table = pa.concat_tables([pq.read_table(self._part(batch), schema=SCHEMA) for batch in range(batches)])
        write_atomic(self.out / RESPONSES, encode_table(table.combine_chunks()))
        return _rows(table)

    def finish(self, evaluation: dict[str, Any]) -> None:
        """Writes `evaluation.json` and clears what is no longer needed."""
        text = json.dumps({"identity": self.identity, **evaluation}, indent=1, allow_nan=False)
        write_atomic(self.out / EVALUATION, text + "\n")
        shutil.rmtree(self.parts, ignore_errors=True)

    def _part(self, batch: int) -> Path:
        return self.parts / f"batch_{batch:06d}.parquet"


def encode_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Plain rows; without tokens, which as Python numbers would be gigabytes."""
    return table.drop_columns(["tokens"]).to_pylist()


def read_evaluation(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The finished evaluation in a folder and its responses without their tokens. Raises UserError if there is none."""
    evaluation = _read_json(folder / EVALUATION)
    if evaluation is None or not (folder / RESPONSES).is_file():
        raise UserError(f"{folder} holds no finished evaluation ({EVALUATION} and {RESPONSES})")
    try:
        return evaluation, _rows(pq.read_table(folder / RESPONSES, schema=SCHEMA))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{folder / RESPONSES} can't be read ({str(error).splitlines()[0]})") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
