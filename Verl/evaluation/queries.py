"""The questions of a prepared set, and their prompts as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from Verl.data.recipe import check_current
from Verl.data.schema import check_parquet
from Verl.errors import UserError
from Verl.reward.sources import KNOWN_DATA_SOURCES

Key = tuple[str, int]  # (data source, index): what a question is known by, in runs and evaluations


@dataclass(frozen=True)
class EvaluationQuery:
    """One row of a prepared set."""

    data_source: str
    index: int
    messages: list[dict[str, str]]
    ground_truth: str

    @property
    def key(self) -> Key:
        return self.data_source, self.index


def read_questions(path: Path, limit: int | None, any_source: bool = False) -> list[EvaluationQuery]:
    """The first `limit` rows of a prepared file, all of them checked.

    Args:
        any_source: also questions that no rule of ours can score.

    Raises:
        DataError: what `check_parquet` finds; a prepared set that the code would now make otherwise.
    """
    check_parquet(path, known_data_sources=None if any_source else KNOWN_DATA_SOURCES)
    check_current(path)
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["data_source", "prompt", "reward_model", "extra_info"]).slice(0, limit)
    return [
        EvaluationQuery(
            data_source=row["data_source"],
            index=int(row["extra_info"]["index"]),
            messages=[{"role": turn["role"], "content": turn["content"]} for turn in row["prompt"]],
            ground_truth=row["reward_model"]["ground_truth"],
        )
        for row in table.to_pylist()
    ]


def fingerprint(path: Path) -> str:
    """A hash of a file's contents."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def encode(
    questions: Sequence[EvaluationQuery], tokenizer: Any, max_prompt_length: int, template: Mapping[str, str]
) -> tuple[list[tuple[EvaluationQuery, list[int]]], list[EvaluationQuery]]:
    """(questions with their prompt's token ids, questions left out because that prompt is too long).

    The prompt is verl's: the chat template around the messages, generation prompt included; `template` holds values
    that the chat template asks for.
    """
    kept, too_long = [], []
    for question in questions:
        try:
            ids = tokenizer.apply_chat_template(question.messages, add_generation_prompt=True, return_dict=False, **template)
        except TemplateError as error:
            raise UserError(
                f"the chat template can't write question {question.index} of {question.data_source} "
                f"({str(error).splitlines()[0]}): give another one as --chat-template"
            ) from error
        if len(ids) <= max_prompt_length:
            kept.append((question, list(ids)))
        else:
            too_long.append(question)
    if not kept:
        raise UserError(
            f"--max-prompt-length {max_prompt_length}: all {len(questions)} prompts are longer, so no question is left"
        )
    return kept, too_long
