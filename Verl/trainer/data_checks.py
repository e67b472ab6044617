"""What a run's three splits must not share, and what stands in one of them twice. Without torch.

Refused: training on a file or on questions of the test or validation set, and two questions of a split that carry one
(data source, index), since reward histories, random streams and paired tests know a question by it. Copies of a question
within a split, and validation questions in the test set, are counted and named: published test sets have copies.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig

from Verl.data.copies import SplitContents, copies, overlap, read_questions, shared_identity
from Verl.errors import UserError
from Verl.trainer.benchmarks import benchmarks, files_of, splits_of


def check_questions(config: DictConfig) -> None:
    """The files were checked one by one; this compares them.

    Raises:
        UserError: in one sentence with the keys, the files and the rows.
    """
    held_out_sets = ("test", "validation", *benchmarks(config))
    for held_out in held_out_sets:
        _refuse_same_file(config, held_out)
    splits, keys = _splits(config), splits_of(config)
    for split, questions in splits.items():
        _refuse_shared_identity(keys[split], questions)
    for held_out in held_out_sets:
        if found := overlap(splits["train"], splits[held_out]):
            raise UserError(
                f"data.train_files: {found.count} of {len(splits['train'].places)} questions are in {keys[held_out]} "
                f"too (the first: {found.first} is {found.same_as}): leave them out of one of the two, as "
                "Dataset/*/prepare.py does"
            )


def count_copies(config: DictConfig) -> dict[str, dict[str, object]]:
    """What is there twice and allowed: {split or "validation in test": {questions, of, first, same_as}}, as for run.json."""
    splits = _splits(config)
    found = {split: (copies(questions), len(questions.places)) for split, questions in splits.items()}
    found["validation in test"] = (overlap(splits["validation"], splits["test"]), len(splits["validation"].places))
    return {
        name: {"questions": twice.count, "of": total, "first": str(twice.first), "same_as": str(twice.same_as)}
        for name, (twice, total) in found.items()
        if twice
    }


def copies_in_words(found: dict[str, dict[str, object]]) -> list[str]:
    """A line for the console for each entry of `count_copies`."""
    lines = []
    for name, one in found.items():
        what = (
            "validation questions are test questions too"
            if name == "validation in test"
            else f"{name} questions are copies of earlier ones"
        )
        lines.append(f"note: {one['questions']} of {one['of']} {what} (the first: {one['first']} is {one['same_as']})")
    return lines


def _splits(config: DictConfig) -> dict[str, SplitContents]:
    return {split: _read(tuple((name, _sha256(Path(name))) for name in files_of(config, split))) for split in splits_of(config)}


@lru_cache(maxsize=16)  # by content, not by date: design.py checks some 160 runs over the same few files
def _read(files: tuple[tuple[str, str], ...]) -> SplitContents:
    return read_questions([name for name, _ in files])


def same_file(config: DictConfig, split: str, other: str) -> tuple[str, str] | None:
    """The first file of a split that is, by its content, one of another split's, and that one; None if there is none."""
    contents = {_sha256(Path(name)): name for name in files_of(config, other)}
    found = ((name, contents.get(_sha256(Path(name)))) for name in files_of(config, split))
    return next(((name, twin) for name, twin in found if twin is not None), None)


def _refuse_same_file(config: DictConfig, held_out: str) -> None:
    if pair := same_file(config, "train", held_out):
        raise UserError(
            f"data.train_files={pair[0]} is the file of {splits_of(config)[held_out]} ({pair[1]}), so the run would be "
            "measured on what it trains on: give another one"
        )


def _refuse_shared_identity(key: str, questions: SplitContents) -> None:
    if (pair := shared_identity(questions)) is None:
        return
    first, second = pair
    source, index = questions.identities[questions.places.index(second)]
    raise UserError(
        f"{key}: {first} and {second} are both question {index} of {source}, and a question is known by its "
        "data source and index: renumber extra_info.index, or give one of the files another data_source"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
