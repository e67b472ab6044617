"""The command line that all ``Running-Results/plot_*.py`` share: a script names its factor, this does the rest.

``python -m Verl.analysis.figures.cli`` draws all of them, from one reading of the runs (make_figures.sh).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

from Verl import FIGURE_DIR, RESULT_DIR, cores
from Verl.analysis.figures import any_metric
from Verl.analysis.figures.curves import DYNAMICS, DYNAMICS_HEIGHT, dynamics_panels, plot_question
from Verl.analysis.figures.layout import FORMATS, NothingToDraw, choose_formats, shown_files, shown_path
from Verl.analysis.figures.levels import plot_levels
from Verl.analysis.figures.overviews import DRAWN, WITHOUT_AXIS
from Verl.analysis.runs.drawn import DRAWN_PASS
from Verl.analysis.runs.run_file import LEDGER
from Verl.analysis.runs.table import Runs, load_runs
from Verl.analysis.verdicts.compare import compare, gains, study_verdicts
from Verl.analysis.verdicts.factors import family_of, pairs_of
from Verl.analysis.verdicts.judge import MARGIN, MARGIN_HELP, Key, Verdict, read_margin
from Verl.analysis.verdicts.saturation import FITTED
from Verl.design.declared import AXES, Factor, declared
from Verl.errors import UserError
from Verl.trainer.benchmarks import evaluated_sets

_PLOTTED = {
    "eval/train/pass@1",
    "timing_s/step",
    *FITTED,
    *(metric for panel in DYNAMICS for metric in panel.metrics),
    *LEDGER.values(),
    DRAWN_PASS,
}
_JUDGED: dict = {}  # (table, folder, axis, margin): verdicts, worked out before processes are forked off


def common_options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT_DIR, metavar="DIR", help="folder of the runs' jsonl")
    parser.add_argument("--figure", type=Path, default=FIGURE_DIR, metavar="DIR", help="folder to draw into")
    parser.add_argument("--margin", type=read_margin, default=MARGIN, metavar="X", help=MARGIN_HELP)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="of the pictures; default: both")
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="model_data pairs, e.g. tiny_arith; default: all")
    return parser


def needed(metric: str) -> bool:
    """Whether the figures and the table need a metric: a run logs scores of others."""
    return metric in _PLOTTED or bool(evaluated_sets([metric]))


def load_or_say(name: str, result_dir: Path, wanted: Callable[[str], bool] = needed) -> Runs | None:
    """The runs with what the figures need; None, and why on the console, if there are none."""
    runs = load_runs(result_dir, wanted)
    if runs.table.empty:
        print(f"{name}: no run found in {shown_path(result_dir)}; nothing drawn.", file=sys.stderr)
        for problem in runs.problems:
            print(f"problem: {problem}", file=sys.stderr)
        return None
    return runs


def relevant_problems(runs: Runs, arms: list[str]) -> list[str]:
    """The problems that concern the arms, said once each."""
    return [p for p in runs.problems if any(p.startswith((f"{arm} on ", f"{arm}_")) for arm in arms)]


def judged_by(runs: Runs, options: argparse.Namespace, axis: str = "steps") -> Mapping[Key, Verdict]:
    """The verdicts of the whole study against an axis, worked out once for all figures."""
    key = (id(runs.table), options.result, axis, options.margin)
    if key not in _JUDGED:
        _JUDGED[key] = runs.table, study_verdicts(runs, options.result, axis, margin=options.margin)
    return _JUDGED[key][1]


def factor_lines(name: str, runs: Runs, options: argparse.Namespace) -> list[str]:
    """Draws the factor of this name against each chosen axis; where, what is missing or wrong, and the verdicts."""
    factor = declared().factors[name]
    arms = pairs_of(factor, runs.table, options.pairs)
    if not arms:
        return [f"{name}: none of its arms was run; nothing drawn."]
    arm_names = list(dict.fromkeys(arm for of_pair in arms.values() for arm in of_pair))
    lines = [f"problem: {problem}" for problem in relevant_problems(runs, arm_names)]
    if options.metric:
        return lines + [line for metric in options.metric for line in _metric_lines(factor, metric, runs, arms, options)]
    for axis in options.axis or factor.axes:
        path = options.figure / (name if axis == "steps" else f"{name}_{axis}")
        drawn = plot_question(runs, arms, path, factor.title, axis)
        lines.append(f"{shown_files(drawn.files)}: {factor.title}, against {AXES[axis]}.")
        lines += [f"  note: {note}" for note in drawn.notes]
        judged = judged_by(runs, options, axis)
        lines += [f"  {one.sentence}" for one in compare(runs, family_of(factor, arms), options.result, axis, judged=judged)]
    if factor.level:
        drawn = plot_levels(runs, arms, options.figure / f"{name}_final", factor.title, factor.level)
        lines.append(f"{shown_files(drawn.files)}: {factor.title}, last test Pass@1 of every arm.")
    if panels := dynamics_panels(runs, arms):
        path = options.figure / f"{name}_dynamics"
        drawn = plot_question(runs, arms, path, factor.title, panels=panels, panel_height=DYNAMICS_HEIGHT)
        lines.append(f"{shown_files(drawn.files)}: {factor.title}, {', '.join(panel.name for panel in panels)}.")
    if factor.from_start:
        judged = judged_by(runs, options)
        for pair, of_pair in arms.items():
            lines += [f"  {one.sentence}" for one in gains(runs, of_pair, [pair], options.result, judged=judged)]
    return lines


def _metric_lines(
    factor: Factor, metric: str, runs: Runs, arms: dict[str, list[str]], options: argparse.Namespace
) -> list[str]:
    """Draws another metric of a factor's arms, and says where each begins and ends."""
    panel, name, lines = any_metric.panel_of(metric), f"{factor.name}_{any_metric.file_part(metric)}", []
    found = any_metric.ends(runs, metric, arms)
    if not found:
        return [f"{factor.name}: none of its arms logs {metric}; nothing drawn."]
    for axis in options.axis or factor.axes:
        path = options.figure / (name if axis == "steps" else f"{name}_{axis}")
        drawn = plot_question(runs, arms, path, factor.title, axis, [panel])
        lines.append(f"{shown_files(drawn.files)}: {factor.title}, {metric} against {AXES[axis]}.")
        lines += [f"  note: {note}" for note in drawn.notes]
    if factor.level:
        drawn = plot_levels(runs, arms, options.figure / f"{name}_final", factor.title, factor.level, panel)
        lines.append(f"{shown_files(drawn.files)}: {factor.title}, last {metric} of every arm.")
    rarely = any_metric.rarely_logged(runs.table, arms, metric)
    return [*lines, *([f"  note: {rarely}"] if rarely else []), *(f"  {any_metric.sentence(row)}" for row in found)]


def _drawn(name: str, runs: Runs, options: argparse.Namespace) -> tuple[list[str], str | None]:
    """The lines of one factor or overview; and why it was not drawn, if it was not."""
    try:
        if name in DRAWN:
            return DRAWN[name](runs, options, lambda axis: judged_by(runs, options, axis)), None
        return factor_lines(name, runs, options), None
    except NothingToDraw as error:
        return ([], f"{name}: {error}.") if options.alone else ([f"{name}: {error}."], None)
    except (OSError, ValueError) as error:
        return [], f"{name}: {error}."


_SHARED: list = []  # runs and options, for the processes that are forked off


def _drawn_from_shared(name: str) -> tuple[list[str], str | None]:
    return _drawn(name, *_SHARED)


def _all_drawn(names: list[str], runs: Runs, options: argparse.Namespace) -> Iterator[tuple[list[str], str | None]]:
    """In a process per core: they share what was read and imported, and most of the time goes into drawing."""
    if len(names) == 1 or "fork" not in get_all_start_methods():
        yield from (_drawn(name, runs, options) for name in names)
        return
    _SHARED[:] = [runs, options]
    if not options.metric:
        judged_by(runs, options)
    with ProcessPoolExecutor(min(len(names), cores.usable()), mp_context=get_context("fork")) as pool:
        yield from pool.map(_drawn_from_shared, names)


def main(names: Sequence[str] = (), arguments: list[str] | None = None) -> int:
    """Draws the factors and overviews of these names; without names everything. Returns the exit status."""
    try:
        factors = declared().factors
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = names or [*DRAWN, *factors]  # what takes longest first
    asks = [str(DRAWN[name].__doc__) if name in DRAWN else factors[name].question for name in names]
    parser = common_options(asks[0] if len(names) == 1 else "Draws every figure and table of the study.")
    parser.add_argument("--axis", nargs="+", choices=AXES, help="budget axes; default: the factor's own")
    said = "metrics of the jsonl to draw instead of Pass@1, e.g. response_length/mean"
    parser.add_argument("--metric", nargs="+", metavar="KEY", help=said)
    options = parser.parse_args(arguments)
    if options.axis and len(names) == 1 and names[0] in WITHOUT_AXIS:
        print(f"--axis has no meaning for plot_{names[0]}.py: {WITHOUT_AXIS[names[0]]}; leave it out", file=sys.stderr)
        return 2
    options.alone = len(names) == 1
    choose_formats(options.formats)
    wanted = any_metric.Watched(options.metric or (), needed)
    runs = load_or_say(names[0] if len(names) == 1 else "make_figures", options.result, wanted)
    if runs is None:
        return 1
    if unknown := wanted.unknown(shown_path(options.result)):
        print(unknown, file=sys.stderr)
        return 2
    failed = 0
    for lines, why_not in _all_drawn(list(names), runs, options):
        print(*lines, sep="\n", end="\n" * bool(lines))
        if why_not:
            failed += 1
            print(why_not, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
