"""From published splits to train, validation and test: no copies in train, no test question in it, a seeded cut.

- A row of train whose answer is empty is dropped: no response could be scored against it.
- A row of train that asks a question of test (or of `held_out`) is dropped: a leak.
- Of several copies of a question in train the first stays.
- Test stays as published, copies included, so that its numbers compare with others'.
- Validation is cut from what is left of train by seed, so that nobody selects on test.

Same question means same `key` (text -> str), which the data set chooses. What is dropped is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from Verl.data.readers import RawRow
from Verl.data.row_checks import DataError


@dataclass(frozen=True)
class SplitRow:
    """A question as all data sets give it. `index`: row number from 0 in the source split. `answer`: solution or ""."""

    data_source: str
    text: str
    ground_truth: str
    answer: str
    index: int
    level: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Published:
    """What a source gave. None: the source has no such split. `held_out`: further test questions, never trained on."""

    train: list[SplitRow] | None
    test: list[SplitRow] | None
    held_out: list[SplitRow] = field(default_factory=list)
    origin: list[dict[str, str]] = field(default_factory=list)


def parse_rows(rows: Sequence[RawRow], to_question: Callable[[RawRow], SplitRow]) -> list[SplitRow]:
    """The questions of one split. Raises DataError for a row that is none, or that carries another row's index."""
    by_index: dict[int, RawRow] = {}
    questions = []
    for row in rows:
        question = to_question(row)
        first = by_index.setdefault(question.index, row)
        if first is not row:
            raise row.error("extra_info.index", f"is {question.index}, which row {first.number} has too")
        questions.append(question)
    return questions


@dataclass
class Counts:
    """What happened to the rows, for the report and the manifest."""

    train_read: int = 0
    train_without_answer: int = 0
    train_leaks: int = 0
    train_duplicates: int = 0
    test_read: int = 0
    test_without_answer: int = 0
    test_duplicates_kept: int = 0
    written: dict[str, int] = field(default_factory=dict)


def build_splits(
    published: Published, *, key: Callable[[str], str], seed: int, validation: int
) -> tuple[dict[str, list[SplitRow]], Counts]:
    """The splits to write, in source order, and what was dropped. `validation` questions are cut from train."""
    counts = Counts()
    splits: dict[str, list[SplitRow]] = {}
    test = published.test or []
    if published.train is not None:
        forbidden = {key(question.text) for question in (*test, *published.held_out)}
        train = _clean_train(published.train, forbidden, key, counts)
        chosen = _choose(train, key, seed, validation)
        splits["train"] = [question for question in train if question.index not in chosen]
        if chosen:
            splits["validation"] = [question for question in train if question.index in chosen]
    if published.test is not None:
        answered = [question for question in test if question.ground_truth.strip()]
        counts.test_read, counts.test_without_answer = len(test), len(test) - len(answered)
        counts.test_duplicates_kept = len(answered) - len({key(question.text) for question in answered})
        splits["test"] = answered
    counts.written = {name: len(questions) for name, questions in splits.items()}
    return splits, counts


def _clean_train(
    train: Sequence[SplitRow], forbidden: set[str], key: Callable[[str], str], counts: Counts
) -> list[SplitRow]:
    """Train without unanswered rows, leaks and copies; each dropped row is counted once, under the first of these."""
    counts.train_read = len(train)
    seen: set[str] = set()
    kept: list[SplitRow] = []
    for question in train:
        question_key = key(question.text)
        if not question.ground_truth.strip():
            counts.train_without_answer += 1
        elif question_key in forbidden:
            counts.train_leaks += 1
        elif question_key in seen:
            counts.train_duplicates += 1
        else:
            seen.add(question_key)
            kept.append(question)
    return kept


def _choose(train: Sequence[SplitRow], key: Callable[[str], str], seed: int, size: int) -> set[int]:
    """The indices of `size` questions, drawn without replacement by seed.

    By the hash of seed and question, not by a random generator: the draw then depends neither on the row order nor
    on a library's version, and one row more or less in train changes at most one question of validation.
    """
    if not 0 <= size < len(train):
        raise DataError(f"--validation {size}: must be from 0 to {len(train) - 1}, train has {len(train)} questions")
    ranked = sorted(train, key=lambda q: hashlib.sha256(f"{seed}:{key(q.text)}".encode()).digest())
    return {question.index for question in ranked[:size]}
