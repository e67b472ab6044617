"""What the prepare scripts share: the options, the way from published data to a written set, the report.

Exit status: 0 written; 1 the data was refused (file, row and field on stderr); 2 the Hub cannot be reached, or the
command line is wrong. Nothing is written unless all of it is right.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from Verl.data.hub import HubError
from Verl.data.prompt_length import count_overlong
from Verl.data.row_checks import DataError
from Verl.data.schema import make_row, write_split_set
from Verl.data.splits import Counts, Published, SplitRow, build_splits

EXIT_WRITTEN, EXIT_REFUSED, EXIT_NO_HUB = 0, 1, 2


@dataclass(frozen=True)
class DataSet:
    """What one data set adds.

    Args:
        key: when two questions are the same.
        example: a question as read from a published row, whose row tells one wording of the prompt from another.
        options: its own, kept in the manifest.
        source_variable: of the environment; names the folder of published files where `--source` does not.
    """

    title: str
    ability: str
    prompt: Callable[[str], str]
    key: Callable[[str], str]
    load: Callable[[argparse.Namespace], Published]
    example: SplitRow
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    options: tuple[str, ...] = ()
    source_variable: str | None = None

    def recipe(self) -> dict[str, Any]:
        """What decides the rows besides the published data (`Verl.data.recipe`)."""
        return _row(self, "train", self.example)

    def defaults(self) -> dict[str, Any]:
        """The settings of a set that was prepared without options."""
        args = _parser(self, Path()).parse_args([])
        return {name: getattr(args, name) for name in ("seed", "validation", *self.options)}


def main(data_set: DataSet, default_out: Path, argv: Sequence[str] | None = None) -> int:
    """Run a prepare script and return its exit status."""
    args = _parse(data_set, default_out, argv)
    try:
        for line in prepare(data_set, args):
            _say(line)
    except DataError as error:
        _say(f"error: {error}", sys.stderr)
        return EXIT_REFUSED
    except HubError as error:
        _say(f"error: {error}", sys.stderr)
        return EXIT_NO_HUB
    return EXIT_WRITTEN


def prepare(data_set: DataSet, args: argparse.Namespace) -> list[str]:
    """Load, clean, split, write; return the lines of the report. Raises DataError, HubError."""
    if args.source is not None and not args.source.exists():
        raise DataError(f"{args.source}: no such file or folder; --source wants the published data")
    published = data_set.load(args)
    questions, counts = build_splits(published, key=data_set.key, seed=args.seed, validation=args.validation)
    rows = {split: [_row(data_set, split, one) for one in chosen] for split, chosen in questions.items()}
    settings: dict[str, Any] = {
        "seed": args.seed,
        "validation": args.validation,
        **{name: getattr(args, name) for name in data_set.options},
        "read": published.origin,
        "counts": asdict(counts),
    }
    overlong = None
    if args.tokenizer is not None:
        overlong = count_overlong(rows, args.tokenizer, args.max_prompt_length)
        settings["overlong"] = {
            "tokenizer": Path(args.tokenizer).name,  # no folder of this machine in the manifest
            "max_prompt_length": args.max_prompt_length,
            "prompts": overlong,
        }
    recipe = {"maker": data_set.title, "options": _typed(data_set, args), "made": data_set.recipe()}
    write_split_set(args.out, rows, source=data_set.title, settings=settings, recipe=recipe)
    return _report(data_set.title, published, counts, overlong, args)


def _typed(data_set: DataSet, args: argparse.Namespace) -> list[str]:
    """The options that make this set another than the default one; of a local source, no folder of this machine."""
    chosen = {name: getattr(args, name) for name, value in data_set.defaults().items() if getattr(args, name) != value}
    typed = [part for name, value in chosen.items() for part in (f"--{name}", str(value))]
    return typed + (["--source", "<folder of the published files>"] if args.source is not None else [])


def _row(data_set: DataSet, split: str, question: SplitRow) -> dict[str, Any]:
    return make_row(
        data_source=question.data_source,
        question=question.text,
        prompt=data_set.prompt(question.text),
        ability=data_set.ability,
        ground_truth=question.ground_truth,
        split=split,
        index=question.index,
        answer=question.answer,
        level=question.level,
        subject=question.subject,
    )


def _report(
    title: str, published: Published, counts: Counts, overlong: dict[str, int] | None, args: argparse.Namespace
) -> list[str]:
    lines = [f"{title}, read from {', '.join(entry['file'] for entry in published.origin)}"]
    if published.train is not None:
        lines.append(
            f"train: {counts.train_read} read; dropped {counts.train_duplicates} duplicates, "
            f"{counts.train_leaks} leaks (questions of the test set), {counts.train_without_answer} without an answer"
        )
    if published.test is not None:
        lines.append(
            f"test: {counts.test_read} read; dropped {counts.test_without_answer} without an answer; "
            f"{counts.test_duplicates_kept} duplicates kept, as published"
        )
    if published.train is None or published.test is None:
        missing = "test" if published.test is None else "train"
        lines.append(f"note: the source has no {missing} split, so leaks between the two were not checked")
    lines += [f"{split}: {rows} rows written" for split, rows in counts.written.items()]
    for split, number in (overlong or {}).items():
        lines.append(
            f"{split}: {number} prompts longer than {args.max_prompt_length} tokens (kept; a run filters them)"
        )
    return [*lines, f"written to {args.out}"]


def _parser(data_set: DataSet, default_out: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Prepare {data_set.title}: parquet files in verl's row schema.")
    parser.add_argument("--out", type=Path, default=default_out, help=f"folder to write (default {default_out})")
    variable = data_set.source_variable
    parser.add_argument(
        "--source",
        type=Path,
        default=os.environ.get(variable) or None if variable else None,
        help=f"published files, a folder or one file (default: {f'${variable}, else ' if variable else ''}from the Hub)",
    )
    parser.add_argument("--seed", type=int, default=0, help="which questions become validation (default 0)")
    parser.add_argument("--validation", type=int, default=512, help="questions cut from train (default 512)")
    parser.add_argument("--tokenizer", metavar="PATH", help="count overlong prompts with this model's tokenizer")
    parser.add_argument("--max-prompt-length", type=int, help="in tokens, with --tokenizer (default 512)")
    if data_set.add_options is not None:
        data_set.add_options(parser)
    return parser


def _parse(data_set: DataSet, default_out: Path, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser(data_set, default_out)
    args = parser.parse_args(argv)
    if args.max_prompt_length is None:
        args.max_prompt_length = 512
    elif args.tokenizer is None:
        parser.error(f"--max-prompt-length {args.max_prompt_length}: give --tokenizer too, whose tokens are counted")
    return args


def _say(line: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(f"{line}\n")
