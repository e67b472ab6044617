"""The options that choose what a study runs: arms and factors of study.yaml, or `--vary`, and `--tune` over either."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from Verl import FIGURE_DIR
from Verl.analysis.verdicts.judge import MARGIN
from Verl.design.arms import Arm
from Verl.design.declared import Pair, Study
from Verl.errors import UserError
from Verl.study import budgets, design_text, saved, tuned, vary
from Verl.study.shipped import Prepared


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base", metavar="ARM", help="with --vary: the arm that everything else is as in")
    add("--vary", action="append", default=[], metavar="KEY=V,V,...",
        help="a factor: the base at each of these values of a setting (repeatable: one factor at a time)")  # fmt: skip
    add("--cross", action="store_true", help="every combination of the --vary levels; main effects and interactions")
    add("--tune", action="append", default=[], metavar="KEY=V,V,...",
        help="run every arm at each value, choose each arm's best on the validation split, compare these on test")  # fmt: skip
    add("--save", metavar="NAME", help="write the --vary factor and its arms to study.yaml, and their scripts")


def has_own_table(options: argparse.Namespace) -> bool:
    """Whether the study is one that ends with its own table: `--vary` or `--tune`."""
    return bool(options.vary or options.tune)


def read(study: Study, pair: Pair, options: argparse.Namespace, shared: Sequence[str]) -> vary.StudyRequest:
    """The arms that the options ask for.

    Args:
        shared: what every run is given (key=value).
    Raises:
        UserError: options that do not go together, or a factor that cannot be one.
    """
    _refuse_combinations(options)
    maker = vary.ArmMaker(study, pair, shared, options.folder)
    varied, values = vary.parse(options.vary), vary.parse(options.tune, "--tune")
    vary.refuse_same_key([*varied, *values], shared, study.derived)
    if options.vary:
        request = vary.requested(maker, study.arm(options.base, pair), varied, options.cross)
    else:
        arms = study.chosen(pair, options.arms, options.factor)
        if not arms:
            raise UserError("no arm to run: give --arms or --factor (design.py show lists them), or --base and --vary")
        names = [arm.name for arm in arms]
        reference = study.base_line if study.base_line in names or not options.tune else names[0]
        of_arms = tuple(vary.VariedArm(arm, arm) for arm in arms)
        request = vary.StudyRequest(study, pair.with_arms(names), of_arms, reference, maker, {})
    request = vary.against(request, options.against, among_arms=has_own_table(options))
    return tuned.with_values(request, maker, values[0]) if values else request


def _refuse_combinations(options: argparse.Namespace) -> None:
    if options.vary and (options.arms or options.factor):
        raise UserError("--vary makes its own arms: leave --arms and --factor out")
    if options.vary and not options.base:
        raise UserError("--vary needs --base ARM: what the arms are as, but for the key (design.py show lists the arms)")
    for name in ("base", "cross", "save"):
        if getattr(options, name) and not options.vary:
            raise UserError(f"--{name} is for --vary: add that, or leave it out")
    if len(options.tune) > 1:
        raise UserError("--tune takes one key: give its values in one --tune")
    if options.until_decided and (options.tune or options.cross):
        other = "--tune" if options.tune else "--cross"
        raise UserError(f"--until-decided stops arms one by one, {other} needs the same seeds of all: leave one of them out")
    if options.save and options.overrides:
        raise UserError(f"--save writes arms as study.yaml has them, without {options.overrides[0]}: leave one of them out")


def name_of(request: vary.StudyRequest, options: argparse.Namespace) -> str:
    """Of the study's files: the pair, and what varies."""
    if options.save or not has_own_table(options):
        return options.save or options.pair
    words = [text.partition("=")[0].rpartition(".")[2] for text in options.vary]
    words += [f"tune-{text.partition('=')[0].rpartition('.')[2]}" for text in options.tune]
    base = [options.base] if options.base else options.factor or options.arms
    return "_".join([options.pair, *base, *words])[:120]


def plan_lines(
    request: vary.StudyRequest, rows: Sequence[tuple[Arm, Prepared]], options: argparse.Namespace, result_dir: Path
) -> list[str]:
    """What the study costs and what it will be able to show, as `design.py plan` says it.

    Raises:
        UserError: an arm that does not fit the pair's machine.
    """
    study = request.study
    plan = design_text.CostPlan(study, request.pair, rows, {
        "steps": options.steps, "seeds": len(set(options.seeds)), "result_dir": result_dir, "seed_std": False,
        "machine": design_text.machine_with(study, request.pair, None, None), "detectable": study.detectable,
        "reference": request.reference,
    })  # fmt: skip
    if small := plan.too_small():
        raise UserError(small[0])
    return [f"{len(rows)} arms: {', '.join(arm.name for arm, _ in rows)}", "", *plan.lines(), ""]


def save(study: Study, request: vary.StudyRequest, options: argparse.Namespace) -> str:
    """Write the requested factors to study.yaml; a line on what was written."""
    return saved.write(study, request, options.pair, options.save, options.folder)


def outcome_lines(
    request: vary.StudyRequest, arm_of: Mapping[str, str], name: str, options: argparse.Namespace, result_dir: Path
) -> list[str]:
    """Table, sentence and figure."""
    from Verl.study.outcome import StudyOutcome  # matplotlib and scipy: seconds that a dry run does not need

    margin = MARGIN if options.margin is None else options.margin
    seeds = options.seeds if not options.until_decided else range(10**6)
    outcome = StudyOutcome(request, arm_of, seeds, result_dir, budgets.axis(options.budget), margin)
    said = outcome.lines(result_dir / f"study_{name}" if options.result else FIGURE_DIR, name)
    looks = "all seeds at one look's level; the stopping rule's verdicts are those above and in the table of states"
    return ["", *said, *([looks] if options.until_decided else [])]
