"""The figures and tables over all factors: forest, frontier, fits, generalisation, table. Each writes its files and says so."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from Verl.analysis.figures import any_metric
from Verl.analysis.figures.curves import TEST_PANEL, our_style
from Verl.analysis.figures.fitted import draw_fits, fits_of
from Verl.analysis.figures.forests import fit_effects, forest_effects, train_test_effects
from Verl.analysis.figures.frontier import draw_frontier, sentence
from Verl.analysis.figures.layout import NothingToDraw, save, shown_files, shown_path
from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs
from Verl.analysis.verdicts.generalisation import RULES, rule_of, train_and_test
from Verl.analysis.verdicts.judge import Key, Verdict
from Verl.analysis.verdicts.saturation import StudyFits
from Verl.analysis.verdicts.summary import summary_table, to_markdown
from Verl.design.declared import AXES, declared

Judged = Callable[[str], Mapping[Key, Verdict]]  # axis -> the verdicts on test Pass@1


def requested_pairs(runs: Runs, options: argparse.Namespace) -> list[str]:
    """The pairs that have runs and were asked for."""
    return [pair for pair in sorted(runs.table["pair"].unique()) if options.pairs is None or pair in options.pairs]


def _suffix(options: argparse.Namespace, metric: str | None = None, axis: str = "steps", pair: str | None = None) -> str:
    parts = [any_metric.file_part(metric) if metric else None, axis if axis != "steps" else None, pair]
    return "".join(f"_{part}" for part in parts if part)


def _save_pages(figures: Sequence[Figure], stem: Path, what: str) -> list[str]:
    """Writes pages, the second as ``<stem>_2``; a line each."""
    lines = []
    for number, figure in enumerate(figures, start=1):
        with our_style():
            files = save(figure, stem if number == 1 else stem.with_name(f"{stem.name}_{number}"))
        page = f", page {number} of {len(figures)}" if len(figures) > 1 else ""
        lines.append(f"{shown_files(files)}: {what}{page}.")
    return lines


def forest_lines(runs: Runs, options: argparse.Namespace, judged: Judged) -> list[str]:
    """Draws every factor's effect on one page: difference, simultaneous interval, margin and verdict of each comparison."""
    lines = []
    for metric in options.metric or [None]:
        for axis in options.axis or ["steps"]:
            known = judged(axis) if metric in (None, TEST) else None
            found = forest_effects(
                runs, options.result, options.margin, options.pairs, metric or TEST, "Every factor's effect", known, axis
            )
            stem = options.figure / f"forest{_suffix(options, metric, axis)}"
            at = "" if axis == "steps" else f", at equal {AXES[axis]}"
            lines += _save_pages(found.figures, stem, f"every factor's effect on {metric or 'test Pass@1'}{at}")
            lines += [f"  {line}" for line in (*(f"note: {note}" for note in found.notes[1:]), *found.lines)]
    return lines


def frontier_lines(runs: Runs, options: argparse.Namespace, judged: Judged) -> list[str]:
    """Draws the iso-compute frontier: Pass@1 over rollouts x queries x steps at equally many generated tokens."""
    lines = []
    for metric in options.metric or [None]:
        panel = any_metric.panel_of(metric) if metric else TEST_PANEL
        figure, _, slices = draw_frontier(runs, requested_pairs(runs, options), "Iso-compute frontier", panel)
        stem = options.figure / f"frontier{_suffix(options, metric)}"
        lines += _save_pages([figure], stem, f"{metric or 'test Pass@1'} at equally many generated tokens")
        lines += [f"  {sentence(one, metric or 'test Pass@1')}" for one in slices]
    return lines


def _fit_lines(runs: Runs, options: argparse.Namespace, fits: StudyFits, pair: str, stem: Path) -> list[str]:
    """The two figures of one pair's fits, and what they say."""
    figures, _ = draw_fits(runs, fits, pair, f"Saturating fits on {pair.replace('_', ' / ')}")
    lines = _save_pages(figures, stem, f"saturating fits of {fits.metric[pair]} against {AXES[fits.axis]}")
    found = fit_effects(runs, fits, pair, options.margin, "Faster or higher")
    what = "asymptotes and midpoints against the reference's"
    lines += _save_pages(found.figures, stem.with_name(f"{stem.name}_effects"), what)
    refused = [one for (of_pair, _), one in fits.fits.items() if of_pair == pair and one.fit is None]
    lines += [f"  {pair}: {one.arm} is not fitted: {one.found.reason}." for one in refused]
    return lines + [f"  {line}" for line in found.lines if "is not fitted" not in line]


def fits_lines(runs: Runs, options: argparse.Namespace, judged: Judged) -> list[str]:
    """Fits a saturating curve to every arm, and draws what tells "learns faster" from "ends higher"."""
    lines, pairs = [], requested_pairs(runs, options)
    for metric in options.metric or [None]:
        for axis in options.axis or ["steps"]:
            fits = fits_of(runs, options.result, axis, metric, options.margin)
            rows = [fit_row(one) for (pair, _), one in fits.fits.items() if pair in pairs]
            stem = options.figure / f"fits{_suffix(options, metric, axis)}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            # Least squares end a little elsewhere on another processor: as many digits as they agree in.
            pd.DataFrame(rows).to_csv(f"{stem}.csv", index=False, float_format="%.4g", lineterminator="\n")
            fitted = sum(not row["not_fitted"] for row in rows)
            lines.append(f"{shown_path(stem)}.csv: saturating fits of {len(rows)} arms, {fitted} of them carried by the data.")
            for pair in pairs:
                own = stem if len(pairs) == 1 else stem.with_name(f"{stem.name}_{pair}")
                lines += _fit_lines(runs, options, fits, pair, own)
    return lines


def fit_row(one) -> dict:
    """One arm's fit as a row of the table; empty numbers, and the reason, where there is none."""
    row = {"pair": one.pair, "arm": one.arm, "metric": one.metric, "seeds": len(one.seeds), "points": one.x_X.size}
    names = ("asymptote", "midpoint", "exponent")
    intervals = {name: one.interval(name) if one.fit else (float("nan"),) * 3 for name in names}
    row["start"] = one.fit.start if one.fit else float("nan")
    for name, (value, low, high) in intervals.items():
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    row |= {"profile_low": one.fit.low, "profile_high": one.fit.high, "noise": one.fit.noise} if one.fit else {}
    return row | {"not_fitted": "" if one.fit else one.found.reason}


def generalisation_lines(runs: Runs, options: argparse.Namespace, judged: Judged) -> list[str]:
    """Draws train against test: does a factor help learning, or what is left of it on other questions?"""
    lines, pairs = [], requested_pairs(runs, options)
    for metric in options.metric or [None]:
        rule = rule_of(metric) if metric else "pass@1"
        if rule is None:
            known = ", ".join(f"eval/test/{rule}" for rule in RULES)
            raise NothingToDraw(f"{metric} has no meaning here, because it is not scored on both train and test: give {known}")
        found = train_and_test(runs, options.result, rule, options.margin)
        for pair in pairs:
            forest = train_test_effects(runs, found, pair, options.margin, rule, "Learning or generalisation")
            stem = options.figure / f"generalisation{_suffix(options, metric, pair=pair if len(pairs) > 1 else None)}"
            lines += _save_pages(forest.figures, stem, f"{rule} on train, and test minus train, against the reference's")
            lines += [f"  {line}" for line in forest.lines]
            if not forest.figures:
                lines.append(f"{pair}: no two arms have {rule} on train and on test; nothing drawn.")
    return lines


def _write_table(frame: pd.DataFrame, text: str, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(f"{stem}.csv", index=False, float_format="%.6f", lineterminator="\n")
    Path(f"{stem}.md").write_text(text, encoding="utf-8")


def _metric_table(metric: str, runs: Runs, options: argparse.Namespace) -> str:
    """Writes the table of another metric; says where."""
    arms = {
        pair: sorted(of_pair.unique(), key=lambda arm: (arm != declared().base_line, arm))
        for pair, of_pair in runs.table.groupby("pair")["arm"]
        if options.pairs is None or pair in options.pairs
    }
    rows = any_metric.ends(runs, metric, arms)
    if not rows:
        raise ValueError(f"no run of the pairs asked for logs {metric}; nothing written")
    stem = options.figure / f"table_{any_metric.file_part(metric)}"
    _write_table(pd.DataFrame(rows), any_metric.to_markdown(metric, rows), stem)
    return f"{shown_path(stem)}.md, .csv: {metric} of {len(rows)} arms."


def table_lines(runs: Runs, options: argparse.Namespace, judged: Judged) -> list[str]:
    """Writes table.csv and table.md: start, final, best and marginal gain of every arm over the base line."""
    if options.metric:
        return [_metric_table(metric, runs, options) for metric in options.metric]
    known = {"pairs": options.pairs, "result_dir": options.result, "margin": options.margin, "judged": judged("steps")}
    summary = summary_table(runs, **known)
    if summary.empty:
        raise ValueError("no run has a test evaluation; nothing written")
    _write_table(summary, to_markdown(summary, options.margin), options.figure / "table")
    problems = [f"problem: {problem}" for problem in runs.problems]
    return [*problems, f"{shown_path(options.figure / 'table.md')}, .csv: {len(summary)} arms."]


DRAWN = {
    "forest": forest_lines,
    "frontier": frontier_lines,
    "fits": fits_lines,
    "generalisation": generalisation_lines,
    "table": table_lines,
}
WITHOUT_AXIS = {
    "frontier": "its axis is the generated tokens",
    "generalisation": "it compares the last evaluations",
    "table": "it compares the last evaluations",
}
