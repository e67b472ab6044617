"""Shows what a run's model said: `bash Running-Bash/samples.sh <run> [filters] [--against <run>] [--html page.html]`.

In the terminal, or as one page (`samples_page`). What a model said is never trusted: it may hold escape sequences, so
all of it goes through `visible`, and nothing is read as rich's markup. Imports neither torch nor verl.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from Verl.analysis.samples.page import page
from Verl.analysis.samples.view import (
    RESULT_DIR,
    Entry,
    Filters,
    Sample,
    StepSummary,
    View,
    build_view,
    facts,
    find_run,
    heading,
    visible,
)
from Verl.errors import UserError
from Verl.files import write_atomic

DEFAULT_LIMIT = 20
_SIDE_BY_SIDE = 100  # columns; below, the two answers stand one under the other


def show(console: Console, view: View) -> None:
    console.print(Text(heading(view), style="bold"))
    for run, history in zip(view.runs, view.history):
        console.print(_history_table(run, history))
    several = len({entry.sample["data_source"] for entry in view.entries}) > 1
    last = None
    for entry in view.entries:
        question = (entry.sample["data_source"], entry.sample["index"])
        if question != last and question in view.questions:
            text, truth = view.questions[question]
            console.print(
                Text(f"\nquestion {question[1]}: {visible(text)}\ntrue answer: {visible(truth)}", style="cyan")
            )
        last = question
        console.print(_entry(entry, view, several, console.width))


def _history_table(run: str, history: Sequence[StepSummary]) -> Table:
    table = Table(title=run, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("step", "responses", "mean reward", "mean tokens"):
        table.add_column(name, justify="right")
    for row in history:
        table.add_row(str(row.step), str(row.responses), f"{row.reward:.2f}", f"{row.length:.0f}")
    return table


def _entry(entry: Entry, view: View, several: bool, width: int) -> RenderableType:
    sample = entry.sample
    source = f" of {sample['data_source']}" if several else ""
    place = f"step {sample['step']}, question {sample['index']}{source}, rollout {sample['rollout']}"
    if entry.other is None:
        return _panel(sample, place)
    panels = [_panel(one, run) for run, one in zip(view.runs, (sample, entry.other))]
    if width < _SIDE_BY_SIDE:
        return Group(Text(place), *panels)
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*panels)
    return Group(Text(place), grid)


def _panel(sample: Sample, title: str) -> Panel:
    colour = "green" if sample["strict"] else "yellow" if sample["flexible"] > 0 else "red"
    text = Text(visible(sample["text"])) if sample["text"] else Text("(empty)", style="dim")
    # In the body, where a long line wraps: a title would be cut off.
    body = Group(Text(facts(sample), style=f"dim {colour}"), text)
    return Panel(body, title=Text(visible(title)), title_align="left", border_style=colour, box=box.ROUNDED)


def parse_steps(text: str | None) -> tuple[int, int | None]:
    """First and last step of "12", "5:10", ":10" or "5:". Raises UserError."""
    if text is None:
        return 0, None
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", text)
    if not match:
        raise UserError(f"--step {text}: give one step (12) or a range (5:10, both included)")
    if match[3]:
        return int(match[3]), int(match[3])
    first, last = int(match[1] or 0), int(match[2]) if match[2] else None
    if last is not None and last < first:
        raise UserError(f"--step {text}: the range ends before it begins")
    return first, last


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="samples.sh", description="Shows what a run's model said.", allow_abbrev=False
    )
    parser.add_argument("run", help="a run's name, or its folder")
    parser.add_argument("--step", help="one step (12) or a range (5:10, :10, 5:), both ends included")
    parser.add_argument("--index", type=int, help="one question, and what its answers did over the steps")
    parser.add_argument("--reward", type=float, help="only responses with this reward (0 or 1)")
    parser.add_argument(
        "--limit", type=int, help=f"at most so many, 0 for all (default: {DEFAULT_LIMIT}; all with --index)"
    )
    text = "answers of the evaluations on this set (train, validation, test or a benchmark), not those of training"
    parser.add_argument("--eval", metavar="SET", help=text)
    parser.add_argument("--against", help="another run, side by side: same step, question and rollout")
    parser.add_argument("--html", type=Path, help="write one self-contained page instead")
    parser.add_argument("--result", type=Path, default=RESULT_DIR, help="folder of the runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """The command; returns the exit status (0 shown, 2 bad input or nothing found)."""
    options = parse(arguments)
    console = console or Console(markup=False, highlight=False)
    try:
        first, last = parse_steps(options.step)
        if options.limit is not None and options.limit < 0:
            raise UserError(f"--limit {options.limit}: it must be 0 (all) or more")
        limit = options.limit if options.limit is not None else (DEFAULT_LIMIT if options.index is None else 0)
        against = find_run(options.against, options.result) if options.against else None
        filters = Filters(first, last, options.index, options.reward, options.eval)
        view = build_view(find_run(options.run, options.result), filters, limit or None, against)
        if options.html:
            _write_page(options.html, view, console)
        else:
            show(console, view)
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error}")
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
    return 0


def _write_page(path: Path, view: View, console: Console) -> None:
    try:
        write_atomic(path, page(view))
    except OSError as error:
        raise UserError(f"--html {path} can't be written: {error.strerror}") from None
    console.print(f"{path}: {len(view.entries)} of {view.found} shown", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
