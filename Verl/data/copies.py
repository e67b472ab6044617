"""Which questions a run's files hold: by identity (data source, index), and by content, to find copies and leaks.

Two questions are the same if their prompts are, or their bare questions (`extra_info.question`), letter case and white
space aside (`schema.normalise_question`). The bare question counts only in a set where it tells as many questions apart
as the prompt does: in a file of other origin it may be one sentence that all rows share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from Verl.data.schema import normalise_question


class RowPlace(NamedTuple):
    """A row of a file; `row` counts from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file} row {self.row}"


class Twice(NamedTuple):
    """How many rows ask again what an earlier row (or another set) asks, and the first such pair."""

    count: int
    first: RowPlace
    same_as: RowPlace


@dataclass
class SplitContents:
    """The questions of one split, over all its files, in order."""

    places: list[RowPlace] = field(default_factory=list)
    identities: list[tuple[str, int]] = field(default_factory=list)  # (data source, index)
    prompts: list[str] = field(default_factory=list)  # normalised
    bare: list[str | None] = field(default_factory=list)  # normalised; None: not given

    def contents(self) -> list[tuple[str, ...]]:
        """The texts by which each row is found again."""
        if None in self.bare or len(set(self.bare)) < len(set(self.prompts)):
            return [(prompt,) for prompt in self.prompts]
        return list(zip(self.prompts, self.bare, strict=True))


def read_questions(files: Sequence[str | Path]) -> SplitContents:
    """The questions of parquet files that `schema.check_parquet` has passed."""
    found = SplitContents()
    for name in files:
        table = pq.ParquetFile(name).read(columns=["data_source", "prompt", "extra_info"], use_threads=False)
        extra = table["extra_info"].combine_chunks()
        sources = table["data_source"].to_pylist()
        found.places += [RowPlace(str(name), row) for row in range(1, table.num_rows + 1)]
        found.identities += list(zip(sources, pc.struct_field(extra, "index").to_pylist(), strict=True))
        found.prompts += [normalise_question(text) for text in _prompt_texts(table["prompt"])]
        found.bare += _bare(extra)
    return found


def _prompt_texts(prompts: pa.ChunkedArray) -> list[str]:
    """All messages of a prompt as one text; the roles are part of it."""
    return ["\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt) for prompt in prompts.to_pylist()]


def _bare(extra: pa.StructArray) -> list[str | None]:
    if extra.type.get_field_index("question") < 0:
        return [None] * len(extra)
    texts = pc.struct_field(extra, "question").to_pylist()
    return [normalise_question(text) if isinstance(text, str) and text.strip() else None for text in texts]


def shared_identity(questions: SplitContents) -> tuple[RowPlace, RowPlace] | None:
    """The first two rows of one split that carry one (data source, index), by which histories and pairs are kept."""
    seen: dict[tuple[str, int], RowPlace] = {}
    for identity, place in zip(questions.identities, questions.places, strict=True):
        if (first := seen.setdefault(identity, place)) is not place:
            return first, place
    return None


def copies(questions: SplitContents) -> Twice | None:
    """The rows that ask what an earlier row of the same split asks."""
    return _again(questions, {})


def overlap(questions: SplitContents, held_out: SplitContents) -> Twice | None:
    """The rows of `questions` that ask what a row of `held_out` asks."""
    known: dict[str, RowPlace] = {}
    for texts, place in zip(held_out.contents(), held_out.places, strict=True):
        for text in texts:
            known.setdefault(text, place)
    return _again(questions, known, fixed=True)


def _again(questions: SplitContents, known: dict[str, RowPlace], fixed: bool = False) -> Twice | None:
    count, pair = 0, None
    for texts, place in zip(questions.contents(), questions.places, strict=True):
        earlier = next((known[text] for text in texts if text in known), None)
        if earlier is not None:
            count += 1
            pair = pair or (place, earlier)
        elif not fixed:
            for text in texts:
                known[text] = place
    return Twice(count, *pair) if pair else None
