"""The curves so far of the runs going on, in the terminal: ``bash Running-Results/live.sh``. Until Ctrl-C, or once.

Reads what the runs write (<run>.jsonl, run.json) and touches nothing; any number of them can look at the same runs.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from Verl import RESULT_DIR
from Verl.analysis.live.braille import Series, chart, sparkline
from Verl.analysis.live.current import Looker, RunNow
from Verl.analysis.runs.run_file import TEST
from Verl.analysis.style import arm_label
from Verl.errors import UserError
from Verl.signals import raise_on_stop
from Verl.wording import duration

_SHARES = (  # of the chart: metric, name, style
    ("train/reward_mean", "reward", "dim"),
    ("eval/train/pass@1", "train", "cyan"),
    ("eval/validation/pass@1", "validation", "yellow"),
    (TEST, "test", "bold magenta"),
)
_LINES = (  # of the sparklines: metric, name, format
    ("train/response_length_mean", "length", ".1f"),
    ("actor/kl_loss", "KL", ".4f"),
    ("actor/grad_norm", "|grad|", ".3f"),
)
_MOST = 12  # runs in the table
_MOST_BENCHMARKS = 3  # per run
_MOST_PARTS = 4  # of a reward, per run
_STATUS = {"running": "green", "finished": "blue", "failed": "red", "interrupted": "yellow"}


def _number(value: float, form: str = ".3f") -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _left(run: RunNow) -> str:
    if run.status != "running":
        return ""
    if run.step == 0:
        return "starting"
    return f"{duration(run.seconds_left)} left" if math.isfinite(run.seconds_left) else ""


def _title(run: RunNow, ascii_only: bool) -> str:
    known = run.identity
    if not known.get("arm"):
        return run.name
    label = arm_label(known["arm"])
    label = label.replace("\N{MULTIPLICATION SIGN}", "x") if ascii_only else label
    return f"{label} on {known['pair']}, seed {known['seed']}"


def _progress(run: RunNow, width: int, ascii_only: bool) -> Text:
    """step 37/100 and a bar; without a last step only the number."""
    total = run.total
    text = Text(f"step {run.step}" + (f"/{total} " if total else ""))
    if total:
        done = round(width * min(1.0, run.step / total))
        text.append(("#" if ascii_only else "━") * done, style="green")
        text.append(("." if ascii_only else "─") * (width - done), style="dim")
    return text.append(f" {_left(run)}")


def _panel(run: RunNow, width: int, height: int, ascii_only: bool) -> Panel:
    """One run with its chart and its sparklines."""
    inner = width - 4
    style = _STATUS.get(run.status, "red")
    lines: list[Text] = [_progress(run, max(10, inner - 40), ascii_only)]
    benchmarks = [(f"eval/{name}/pass@1", name, "green") for name in run.benchmarks()[:_MOST_BENCHMARKS]]
    series = [Series(name, style, run.curve(metric).points) for metric, name, style in (*_SHARES, *benchmarks)]
    legend = Text()
    for one in series:
        if one.points:
            marker = "*" if ascii_only else "━"
            legend.append(f"{marker} ", style=one.style).append(f"{one.name} {_number(one.points[-1][1])}   ")
    lines += chart(series, inner, height, run.total or run.step, ascii_only=ascii_only)
    lines.append(legend if legend else Text("no step yet", style="dim"))
    parts = [(metric, metric.removeprefix("reward/"), ".3g") for metric in run.reward_parts()[:_MOST_PARTS]]
    for metric, name, form in (*_LINES, *parts):
        curve = run.curve(metric)
        if curve.points:
            bars = sparkline(curve.values, max(8, inner - 20), ascii_only)
            lines.append(Text(f"{name[:16]:>6} {_number(curve.last, form):>9}  ").append(bars, style="cyan"))
    if run.problem:
        lines.append(Text(run.problem, style="red"))
    for line in lines[:-1]:
        line.truncate(inner)
    title = Text(f"{_title(run, ascii_only)}: ").append(run.status, style=style)
    return Panel(Group(*lines), title=title, title_align="left", width=width)


def _table(runs: Sequence[RunNow], width: int, ascii_only: bool) -> Table:
    """A line per run."""
    table = Table(box=None, pad_edge=False, width=width, header_style="dim")
    for name, justify in (("run", "left"), ("step", "right"), ("left", "right"), ("reward", "left"), ("test", "left")):
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", ratio=3 if name == "run" else None)
    bars = max(4, (width - 60) // 4)
    for run in runs:
        cells = []
        for metric in ("train/reward_mean", TEST):
            curve = run.curve(metric)
            cells.append(f"{_number(curve.last)} {sparkline(curve.values, bars, ascii_only)}")
        step = f"{run.step}/{run.total}" if run.total else str(run.step)
        left = _left(run).removesuffix(" left") or run.status
        table.add_row(
            Text(_title(run, ascii_only)), step, Text(left, style=_STATUS.get(run.status, "red")), *map(Text, cells)
        )
    return table


def picture(runs: Sequence[RunNow], width: int, height: int, now: float, ascii_only: bool = False) -> RenderableType:
    """All runs as a table, and as many of them with their curves as the terminal's height holds, the newest first."""
    going, runs, total = sum(run.status == "running" for run in runs), runs[:_MOST], len(runs)
    said = f"{going} going on" if going else "nothing going on; the last ones"
    said += f"; {_MOST} of {total} shown" if total > _MOST else ""
    parts: list[RenderableType] = [Text(f"{time.strftime('%H:%M:%S', time.localtime(now))}  {said}", style="dim")]
    if len(runs) > 1:
        parts.append(_table(runs, width, ascii_only))
    room = height - 1 - (len(runs) + 1 if len(runs) > 1 else 0)
    fitting = max(1, min(len(runs), room // 16))
    rows = max(4, min(12, room // fitting - 9))
    parts += [_panel(run, width, rows, ascii_only) for run in runs[:fitting]]
    return Group(*parts)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="live.sh", description="Shows the curves so far of the runs going on, until Ctrl-C.", allow_abbrev=False
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="only these runs, finished or not")
    parser.add_argument("--result", type=Path, default=RESULT_DIR, metavar="DIR", help="folder of the runs")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="look again so often (default: 2)")
    parser.add_argument("--once", action="store_true", help="one picture, and stop")
    parser.add_argument("--all", action="store_true", help="finished runs too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """The command; returns the exit status (0, or 2 for bad input or where there is no run)."""
    options = parse(arguments)
    console = console or Console(highlight=False)
    ascii_only = not console.encoding.lower().startswith("utf")
    looker = Looker(options.result, options.runs, options.all)

    def look() -> RenderableType:
        return picture(looker.look(), console.width, console.height, time.time(), ascii_only)

    try:
        if not options.every > 0:
            raise UserError(f"--every {options.every:g}: it must be above 0")
        if options.once or not console.is_terminal:
            console.print(look())
            return 0
        with Live(look(), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(options.every)
                live.update(look(), refresh=True)
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise_on_stop()
    sys.exit(main())
