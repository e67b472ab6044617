"""The study as one page: ``bash Running-Results/report.sh [--result DIR] [--out FILE]``.

Everything stands in the file itself (figures as SVG, no script, no font, no request), and the same runs give the same
bytes. What the runs do not tell (no evaluations, no configs, no samples) is said where it would stand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Verl import RESULT_DIR
from Verl.analysis.figures.curves import DYNAMICS
from Verl.analysis.figures.layout import shown_path
from Verl.analysis.pages import render
from Verl.analysis.report import overviews
from Verl.analysis.report.frozen import declared_part, exploratory
from Verl.analysis.report.run_tables import GAP_LIMIT, KL_LIMIT, arms_in_order, costs, health, provenance, speeds
from Verl.analysis.report.samples import samples
from Verl.analysis.report.sections import across_pairs, sections, verdict_counts
from Verl.analysis.report.serve import PORT, Live, serve
from Verl.analysis.report.svg import share_letters
from Verl.analysis.report.taken import steps_taken
from Verl.analysis.runs.configs import first_runs, flat_config, why_mixed
from Verl.analysis.runs.drawn import DRAWN_PASS
from Verl.analysis.runs.foundations import ground
from Verl.analysis.runs.table import Runs, load_runs
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.compare import compare, study_family, study_verdicts
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.factors import arms_of
from Verl.analysis.verdicts.judge import MARGIN, MARGIN_HELP, Key, Verdict, read_margin
from Verl.analysis.verdicts.saturation import FITTED
from Verl.analysis.verdicts.summary import benchmarks_of, summary_table
from Verl.analysis.verdicts.text import number, p_text, verdict_words
from Verl.design.arms import Factor, Pair
from Verl.design.declared import declared
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.signals import raise_on_stop

OUT = RESULT_DIR.with_name("report.html")
_PREFIXES = ("eval/", "ledger/total_", "reward/", "actor/", "training/rollout_probs_diff")
_METRICS = {"timing_s/step", *FITTED, DRAWN_PASS, *(metric for panel in DYNAMICS for metric in panel.metrics)}
_NONE = "\N{EN DASH}"


def _wanted(metric: str) -> bool:
    return metric in _METRICS or metric.startswith(_PREFIXES)


def _plain(value: float | None, form: str = ".3f") -> str:
    """A number, a dash where there is none."""
    if value is None or math.isnan(value):
        return _NONE
    return "never" if math.isinf(value) else format(value, form).replace("-", "\N{MINUS SIGN}")


def _signed(value: float | None) -> str:
    return _NONE if value is None or math.isnan(value) else number(value)


def _interval(low: float, high: float, signed: bool = False) -> str:
    form = number if signed else _plain
    return "" if not math.isfinite(high - low) else f"{form(low)} to {form(high)}"


def _count(value: float) -> str:
    """A count that can be read at a glance: 3,200, 51.2 k, 1.64 M."""
    if math.isnan(value):
        return _NONE
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:,.0f}"


def _times(log: float) -> str:
    """A ratio from its logarithm."""
    return f"{math.exp(min(log, 50.0)):.2f}"


def _small(value: float) -> str:
    """Numbers over many orders: 2.4e-07, 0.595."""
    if math.isnan(value):
        return _NONE
    text = "0" if value == 0 else f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _facts(runs: Runs) -> dict[str, Any]:
    """The numbers at the top."""
    firsts = runs.table.drop_duplicates("run")
    status = firsts["status"].value_counts().to_dict()
    return {
        "runs": len(firsts),
        "status": ", ".join(f"{count} {name}" for name, count in sorted(status.items())),
        "pairs": sorted(firsts["pair"].unique()),
        "arms": int(firsts["arm"].nunique()),
        "hours": float(runs.table.groupby("run")["ledger/total_hours"].max().sum())
        if "ledger/total_hours" in runs.table
        else math.nan,
    }


def _design(runs: Runs, result_dir: Path) -> list[dict[str, Any]]:
    """Per pair: the factors that it can compare, the seeds of every arm, and what is declared and was not run."""
    study, found = declared(), []
    for pair in sorted(runs.table["pair"].unique()):
        rows = runs.table[runs.table["pair"] == pair].drop_duplicates("run")
        seeds = {
            arm: sorted(int(s) for s in rows.loc[rows["arm"] == arm, "seed"]) for arm in arms_in_order(runs.table, pair)
        }
        of_pair = study.pairs.get(pair)
        compared = [factor for factor in study.factors.values() if of_pair and of_pair.compared(factor)]
        shown = [factor for factor in compared if arms_of(factor, pair, list(seeds))]
        factors = [
            {"title": factor.title, "keys": factor.keys, "arms": [*of_pair.members(factor).values()],
             "published": factor.published, "source": factor.source}
            for factor in shown
        ]  # fmt: skip
        without = [arm for arm, run in first_runs(runs.table, pair).items()
                   if flat_config(result_dir / run / "config.yaml") is None]  # fmt: skip
        expected = _expected(of_pair, compared, shown) if of_pair else []
        absent = [arm for arm in expected if arm not in seeds]
        found.append(
            {"pair": pair, "declared": of_pair is not None, "factors": factors, "seeds": seeds, "absent": absent}
            | {"expected": len(expected), "without_config": sorted(without)}
        )
    return found


def _expected(pair: Pair, compared: Sequence[Factor], shown: Sequence[Factor]) -> list[str]:
    """The arms of a pair, without those of factors that were not run here alone."""
    in_shown, in_any = ({arm for one in some for arm in pair.members(one).values()} for some in (shown, compared))
    return [arm for arm in pair.arms if arm in in_shown or arm not in in_any]


def _every_comparison(runs: Runs, result_dir: Path, judged: Mapping[Key, Verdict]) -> list[Comparison]:
    """Each comparison of the study once, the check's Holm within the families of the verdicts."""
    families: dict[tuple[str, str], list[Key]] = {}
    for key in study_family(runs.table):
        families.setdefault((key[0], key[2]), []).append(key)
    return [one for family in families.values() for one in compare(runs, family, result_dir, judged=judged)]


def context(result_dir: Path, margin: float = MARGIN, frozen: Path | None = None) -> dict[str, Any]:
    """All that the page shows. Raises UserError if there is no run."""
    runs = load_runs(result_dir, _wanted)
    if runs.table.empty:
        raise UserError(f"no run found in {result_dir}: nothing to report")
    pairs = sorted(runs.table["pair"].unique())
    arms = list(dict.fromkeys(arm for pair in pairs for arm in arms_in_order(runs.table, pair)))
    by_pair = {"costs": costs, "speeds": speeds}
    checks, design = health(runs, result_dir), _design(runs, result_dir)
    grounds = [ground(result_dir, runs.table, pair) for pair in pairs]
    judged = study_verdicts(runs, result_dir, margin=margin)
    found = sections(runs, result_dir, judged)
    compared = _every_comparison(runs, result_dir, judged)
    part = declared_part(runs, result_dir, margin, frozen)
    mixed = {f"{part.pair}: {text}": None for one in found for part in one.parts for text in part.ground}
    resumed = [text for one in grounds for text in one.changed]
    not_run = [
        f"{one['pair']}: {len(one['absent'])} of {one['expected']} declared arms were not run; the design names them"
        for one in design
        if one["absent"]
    ]
    return {
        "facts": _facts(runs),
        "design": design,
        "sections": found,
        "forest": overviews.forest(runs, result_dir, margin, judged),
        "fits": overviews.fits(runs, result_dir, margin),
        "frontier": overviews.frontier(runs),
        "generalisation": overviews.generalisation(runs, result_dir, margin),
        "margin": margin,
        "declared": part,
        "exploratory": exploratory(compared, part),
        "counts": verdict_counts(compared),
        "disputed": [one for one in compared if one.disputed() and one.counted_as is None],
        "summary": summary_table(runs, arms, result_dir=result_dir, judged=judged).to_dict("records"),
        "benchmarks": benchmarks_of(runs.table),
        "across": across_pairs(runs.table, declared().base_line, arms),
        **{name: {pair: of_pair(runs.table, pair) for pair in pairs} for name, of_pair in by_pair.items()},
        "health": checks,
        "taken": steps_taken(result_dir, runs.table),
        "flagged": [one for one in checks if one.flags],
        "limits": {"gap": GAP_LIMIT, "kl": KL_LIMIT},
        "samples": {pair: samples(result_dir, runs.table, pair) for pair in pairs},
        "problems": runs.problems + why_mixed(result_dir, runs.table) + list(mixed) + resumed + not_run,
        "grounds": grounds,
        "provenance": provenance(result_dir, list(dict.fromkeys(runs.table["run"]))),
        "base_line": declared().base_line,
    }


def build(result_dir: Path | str, margin: float = MARGIN, frozen: Path | None = None) -> str:
    """The whole page."""
    filters = {"plain": _plain, "signed": _signed, "interval": _interval, "count": _count, "small": _small}
    filters |= {"label": arm_label, "p": p_text, "verdict": verdict_words, "times": _times}
    return share_letters(render("report.html.j2", filters, context(Path(result_dir), margin, frozen)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="report.sh", description="Writes the study as one self-contained HTML page.")
    parser.add_argument("--result", type=Path, default=RESULT_DIR, metavar="DIR", help="folder of the runs' jsonl")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="the page to write")
    parser.add_argument("--margin", type=read_margin, default=MARGIN, metavar="X", help=MARGIN_HELP)
    text = "the declaration of `design.py freeze`; default: frozen.yaml in the result folder or beside it"
    parser.add_argument("--frozen", type=Path, metavar="FILE", help=text)
    text = "instead of a file: in a browser on this machine, made anew while runs go on, until Ctrl-C (default port: %(const)s)"
    parser.add_argument("--serve", type=int, nargs="?", const=PORT, metavar="PORT", help=text)
    options = parser.parse_args(arguments)
    try:
        if options.serve is not None:
            return _serve(options)
        text = build(options.result, options.margin, options.frozen)
        write_atomic(options.out, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --out {options.out} can't be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{shown_path(options.out)}: {len(text.encode()) / 1e6:.1f} MB")
    return 0


def _serve(options: argparse.Namespace) -> int:
    if not 0 <= options.serve <= 65535:
        raise UserError(f"--serve {options.serve}: a port is a number from 0 to 65535")
    if not options.result.is_dir():
        raise UserError(f"--result {options.result} is not a folder: give the one that the runs write to")
    raise_on_stop()
    try:
        serve(Live(options.result, lambda: build(options.result, options.margin, options.frozen)), options.serve)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
