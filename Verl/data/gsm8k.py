"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): 7,473 train and 1,319 test questions, an integer each.

Layouts read: the published jsonl and the Hub's parquet (question, answer), and verl's schema.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from Verl.data import prompts
from Verl.data.hub import load_hub_split
from Verl.data.prepare import DataSet
from Verl.data.readers import RawRow, RawSplit, find_split, read_files, split_of_file
from Verl.data.row_checks import DataError
from Verl.data.schema import normalise_question
from Verl.data.splits import Published, SplitRow, parse_rows
from Verl.reward import sources

HUB_CONFIG = "main"
# The digits 0-9 only: no scorer reads others.
_NUMBER = r"-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)"
_FINAL_NUMBER = re.compile(rf"####\s*({_NUMBER})\s*\Z")


def final_number(answer: str) -> str | None:
    """The number after the closing `####` of a reference answer, without commas ("#### 5,600" -> "5600")."""
    found = _FINAL_NUMBER.search(answer)
    return found.group(1).replace(",", "") if found else None


def to_question(row: RawRow) -> SplitRow:
    """A published row, in whichever layout. Raises DataError with file, row and field."""
    if row.in_verl_schema:
        text, index = row.verl_question(prompts.GSM8K_INSTRUCTION), row.verl_index()
        answer = row.text("extra_info.answer", may_be_empty=True) if row.get("extra_info.answer", "") else ""
        truth = row.text("reward_model.ground_truth").strip()
        if not re.fullmatch(_NUMBER, truth):
            raise row.error("reward_model.ground_truth", f"is {truth!r}, not a number")
        truth = truth.replace(",", "")
        return SplitRow(sources.GSM8K, text, truth, answer, index)
    text, answer = row.text("question"), row.text("answer")
    truth = final_number(answer)
    if truth is None:
        raise row.error("answer", "does not end in '#### <number>'")
    return SplitRow(sources.GSM8K, text, truth, answer, row.index)


def load(args: argparse.Namespace) -> Published:
    """Train and test from `--source` or the Hub. A single file gives its own split, a folder must have test."""
    if args.source is None:
        return _published({split: load_hub_split(sources.GSM8K, split, HUB_CONFIG) for split in ("train", "test")})
    source: Path = args.source
    if source.is_file():
        return _published({split_of_file(source): read_files([source])})
    found = {split: find_split([source, source / "gsm8k"], split) for split in ("train", "test")}
    if not found["test"]:
        raise DataError(f"{source}: no test.jsonl, test.parquet or test-*-of-*.parquet in it; give GSM8K's folder")
    return _published({split: read_files(paths) for split, paths in found.items() if paths})


def _published(raw: dict[str, RawSplit]) -> Published:
    questions = {split: parse_rows(one.rows, to_question) for split, one in raw.items()}
    origin = [entry for one in raw.values() for entry in one.origin]
    return Published(questions.get("train"), questions.get("test"), origin=origin)


_EXAMPLE = {"question": "What is 2 x 2,800?\n", "answer": "Double it.\n#### 5,600"}
GSM8K = DataSet(
    title="GSM8K",
    ability="math",
    prompt=prompts.gsm8k_prompt,
    key=normalise_question,
    load=load,
    example=to_question(RawRow("the example", 1, 0, _EXAMPLE)),
    source_variable="BANDIT_GSM8K",
)
