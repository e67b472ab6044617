r"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): 7,500 train and 5,000 test problems; MATH-500, a subset of test.

Layouts read: the Hub's parquet (problem, level, solution, type), MATH-500's jsonl (problem, solution, answer,
subject, level), and verl's schema. MATH-500 (Lightman et al. 2023) is the default test set, as in the study.

Whatever the test set, train loses every problem that the full test set has, where the source holds it.
Two train problems have an empty box for an answer; they are dropped (`splits`).
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
from Verl.reward.hendrycks import boxed as last_boxed  # the lenient rule's reader, which no layout defeats


def latex_key(text: str) -> str:
    r"""Same problem, typeset another way: without $, \[ \], braces, spacing and the stop at the end of a sentence.

    Bolder than `normalise_question` on purpose: "$f(2)?$" is "$f(2)$?", "x^{2}" is "x^2". What decides an answer
    stays: signs, brackets, comparison, commas, the point in 22.5.
    """
    bare = re.sub(r"\\\[|\\\]|\\[,;!]|[${}]|[.?](?!\d)", "", text)
    return normalise_question(bare).replace(" ", "")


def to_question(row: RawRow) -> SplitRow:
    """A published row, in whichever layout. Raises DataError with file, row and field."""
    if row.in_verl_schema:
        text, index = row.verl_question(prompts.MATH_INSTRUCTION), row.verl_index()
        solution = row.text("extra_info.answer", may_be_empty=True) if row.get("extra_info.answer", "") else ""
        truth = _without_braces(row.text("reward_model.ground_truth", may_be_empty=True))
    else:
        text, solution, index = row.text("problem"), row.text("solution"), row.index
        truth = row.text("answer") if row.get("answer", None) is not None else last_boxed(solution)
        if truth is None:
            raise row.error("solution", "has no \\boxed{...} that closes")
    data_source = sources.MATH_500 if _is_math500(row) else sources.MATH
    return SplitRow(data_source, text, truth.strip(), solution, index, _level(row), _subject(row))


def _without_braces(truth: str) -> str:
    r"""verl cuts `\boxed {17}.` to "{17}." (train row 253 of the published parquet), which no answer equals: "17"."""
    found = re.fullmatch(r"\s*\{([^{}]*)\}\.?\s*", truth)
    return found.group(1) if found else truth


def _is_math500(row: RawRow) -> bool:
    return "unique_id" in row.values or row.values.get("data_source") == sources.MATH_500


def _level(row: RawRow) -> str:
    """ "Level 5" in MATH, 5 in MATH-500: one spelling. Two problems say "Level ?"."""
    level = row.get("level", row.get("extra_info.level", ""))
    if isinstance(level, int) and not isinstance(level, bool):
        return f"Level {level}"
    if not isinstance(level, str):
        raise row.error("level", f"is {type(level).__name__}, not a number or text")
    return row.whole("level", level)


def _subject(row: RawRow) -> str:
    for name in ("type", "subject", "extra_info.subject"):
        if row.get(name, ""):
            return row.text(name)
    return ""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", choices=("500", "full"), default="500", help="MATH-500 (default) or all 5,000")
    parser.add_argument(
        "--math500", type=Path, metavar="PATH", help="MATH-500 (file or folder) where it is not in or beside --source"
    )


def load(args: argparse.Namespace) -> Published:
    """Train and test from `--source` or the Hub. A single file gives its own split, as it is."""
    if args.math500 is not None and (args.source is None or args.source.is_file() or args.test == "full"):
        raise DataError(f"--math500 {args.math500}: only used with a folder as --source and without --test full")
    if args.math500 is not None and not args.math500.exists():
        raise DataError(f"--math500 {args.math500}: no such file or folder; give MATH-500's test.jsonl")
    if args.source is None:
        train, full = (load_hub_split(sources.MATH, split) for split in ("train", "test"))
        return _published(train, full, full if args.test == "full" else load_hub_split(sources.MATH_500, "test"))
    source: Path = args.source
    if source.is_file():
        raw = read_files([source])
        return _published(raw, None, None) if split_of_file(source) == "train" else _published(None, None, raw)
    folders = [source, source / "MATH", source / "MATH-lighteval"]
    train, full = (_read_split(folders, split) for split in ("train", "test"))
    test = _full_test(full, source) if args.test == "full" else _math500(full, args)
    return _published(train, full, test)


def _full_test(full: RawSplit | None, source: Path) -> RawSplit:
    if full is None:
        raise DataError(f"{source}: no test.jsonl, test.parquet or test-*-of-*.parquet in it; give MATH's folder")
    if _is_math500(full.rows[0]):
        raise DataError(f"{source}: its test split is MATH-500, not the full one; leave out --test full")
    return full


def _math500(full: RawSplit | None, args: argparse.Namespace) -> RawSplit:
    """MATH-500: where `--math500` says, the source itself, or a folder MATH-500 in the source or beside it."""
    if args.math500 is not None and args.math500.is_file():
        return read_files([args.math500])
    if args.math500 is None and full is not None and _is_math500(full.rows[0]):
        return full
    near = [args.source / "MATH-500", args.source.absolute().parent / "MATH-500"]
    found = _read_split(near if args.math500 is None else [args.math500], "test")
    if found is None:
        where = args.math500 or f"{args.source} or beside it (as MATH-500/)"
        raise DataError(f"MATH-500's test.jsonl is not in {where}; give --math500 PATH, or choose --test full")
    return found


def _read_split(folders: list[Path], split: str) -> RawSplit | None:
    paths = find_split(folders, split)
    return read_files(paths) if paths else None


def _published(train: RawSplit | None, full: RawSplit | None, test: RawSplit | None) -> Published:
    """`full` is the full test set: it is held out of train even where the test set is MATH-500."""
    return Published(
        train=None if train is None else parse_rows(train.rows, to_question),
        test=None if test is None else parse_rows(test.rows, to_question),
        held_out=[] if full is None or full is test else parse_rows(full.rows, to_question),
        origin=[entry for one in (train, full, test if test is not full else None) if one for entry in one.origin],
    )


_EXAMPLE = {"problem": "What is $2 x$?\n", "solution": "It is $\\boxed{2 x}$.", "level": "Level 2", "type": "Algebra"}
MATH = DataSet(
    title="MATH",
    ability="math",
    prompt=prompts.math_prompt,
    key=latex_key,
    load=load,
    example=to_question(RawRow("the example", 1, 0, _EXAMPLE)),
    add_options=add_options,
    options=("test",),
    source_variable="BANDIT_MATH",
)
