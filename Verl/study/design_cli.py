"""The command line of Running-Bash/design.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from Verl import RESULT_DIR
from Verl.design import declared as design
from Verl.design import freeze
from Verl.design.differences import check_factors, differences
from Verl.errors import UserError
from Verl.study import design_text, effect, plan, scripts, shipped, starting


def main(arguments: list[str] | None = None, description: str | None = None) -> int:
    """Exit status 0; 1 if `check` finds something; 2 for bad input, and where a plan does not fit its GPU."""
    options = _parser(description).parse_args(arguments)
    try:
        study = design.load(options.folder / design.DESIGN_FILE.name)
        return options.run(study, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 0


def _say(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="design.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=design.BASH, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="show | diff | check | plan | freeze")
    for name, run, text in (
        ("show", _show, "factors, arms and scripts"),
        ("diff", _diff, "the resolved-config difference of two arms, and whether it is one factor"),
        ("check", _check, "all scripts against study.yaml, all comparisons of all factors"),
        ("plan", _plan, "steps, tokens, memory, hours, and what the study will be able to show"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if name == "diff":
            command.add_argument("a"), command.add_argument("b")
            command.add_argument("--pair", help="where both arms run; leave it out if A and B name their scripts")
        else:
            command.add_argument("--pair", dest="pairs", action="append", metavar="PAIR", help="only this one (repeatable)")
        if name == "plan":
            _plan_options(command)
        if name == "check":
            command.add_argument(
                "--effect", action="store_true", help="also train both arms of every comparison for two steps (minutes)"
            )
    _freeze_options(commands.add_parser("freeze", help="declare a study before it is run, in a file with a hash"))
    return parser


def _freeze_options(command: argparse.ArgumentParser) -> None:
    from Verl.analysis.verdicts.judge import MARGIN, MARGIN_HELP, read_margin

    command.set_defaults(run=_freeze)
    command.add_argument("--name", required=True, help="of the study; the file is Running-Results/<name>/frozen.yaml")
    command.add_argument("--question", required=True, help="what the study asks, in a sentence")
    command.add_argument("--pair", required=True)
    _add_arms(command)
    command.add_argument("--factor", action="append", default=[])
    command.add_argument("--against", metavar="ARM", help="what the arms are compared with; default: the base line")
    command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    command.add_argument("--until-decided", action="store_true", help="the stopping rule of run_study.sh")
    command.add_argument("--max-seeds", type=int, default=10, help="with --until-decided (default: 10)")
    command.add_argument("--margin", type=read_margin, default=MARGIN, metavar="X", help=MARGIN_HELP)
    command.add_argument("--steps", type=int, help="of each run; default: the script's")
    command.add_argument("--result", type=Path, default=RESULT_DIR, help="where the runs will be, to say which are there")
    command.add_argument("--out", type=Path, help="another file")


def _freeze(study: design.Study, options: argparse.Namespace) -> int:
    from Verl.analysis.verdicts import deciding

    pair, reference = study.pair(options.pair), options.against or study.base_line
    arms = study.chosen(pair, options.arms, options.factor or ([] if options.arms else ["all"]))
    names = list(dict.fromkeys([study.arm(reference, pair).name, *(arm.name for arm in arms)]))
    most = options.max_seeds if options.until_decided else len(set(options.seeds))
    deciding.rule_of(reference, names, options.seeds, most, options.margin)  # the same slips end in the same sentences
    ready = {name: starting.prepare(study.arms[name], pair, folder=options.folder) for name in names}
    steps = {options.steps or plan.workload(one.config, study.data[pair.data]).steps for one in ready.values()}
    if len(steps) > 1:
        raise UserError(f"the arms end at different steps ({', '.join(map(str, sorted(steps)))}): give --steps")
    frozen = freeze.declare(
        options.result, study=options.name, question=options.question, pair=pair.name, reference=reference,
        arms={one.config.run.arm: one.hash for one in ready.values()}, steps=steps.pop(),
        seeds=tuple(sorted(set(options.seeds))), max_seeds=options.max_seeds if options.until_decided else None,
        margin=options.margin, alpha=study.detectable["alpha"],
    )  # fmt: skip
    path = options.out or RESULT_DIR.parent / options.name / freeze.NAME
    freeze.write(frozen, path)
    seen = f"; {len(frozen.seen)} runs of it are there already, which the file says" if frozen.seen else ""
    _say([f"{path}: {freeze.line(frozen)}{seen}"])
    return 0


def _add_arms(command: argparse.ArgumentParser) -> None:
    command.add_argument("--arms", nargs="+", default=[], help="only these arms")
    # In commands published earlier.
    command.add_argument("--cells", dest="arms", nargs="+", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _plan_options(command: argparse.ArgumentParser) -> None:
    _add_arms(command)
    command.add_argument("--factor", action="append", default=[], metavar="NAME", help="only a factor's arms (repeatable)")
    command.add_argument("--steps", type=int, help="steps of each run; default: the script's")
    command.add_argument("--seeds", type=int, help="number of seeds; default: study.yaml's")
    command.add_argument("--seed-std", type=float, help="std over seeds of the difference of two arms' Pass@1")
    command.add_argument("--gpu-gib", type=float, help="memory of another GPU")
    command.add_argument("--gpus", type=int, help="GPUs of each run, data parallel (trainer.n_gpus_per_node)")
    command.add_argument("--efficiency", type=float, help="share of the data sheet's speed, instead of study.yaml's")
    command.add_argument("--result", type=Path, default=RESULT_DIR, help="folder of finished runs to take the speed from")


def _pairs(study: design.Study, options: argparse.Namespace) -> list[design.Pair]:
    return [study.pair(name) for name in options.pairs] if options.pairs else list(study.pairs.values())


def _show(study: design.Study, options: argparse.Namespace) -> int:
    _say(design_text.show(study, _pairs(study, options)))
    return 0


def _diff(study: design.Study, options: argparse.Namespace) -> int:
    if options.pair:
        pair = study.pair(options.pair)
        a, b = ((study.arm(name, pair), pair) for name in (options.a, options.b))
    else:
        a, b = study.split_script(options.a), study.split_script(options.b)
    flats = [shipped.prepare(design.script_name(c.name, p.name), folder=options.folder).flat for c, p in (a, b)]
    _say(design_text.difference(study, differences(*flats, study.derived), a, b))
    return 0


def prepared_scripts(names: list[str], folder: Path, jobs: int = 2) -> Iterator[tuple[str, shipped.Prepared | UserError]]:
    """Every script's config, or why it has none; in a few processes, since composing is plain computing."""
    if len(names) < 20:
        yield from ((name, _prepare(name, folder)) for name in names)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from zip(names, pool.map(_prepare, names, [folder] * len(names), chunksize=12))


def _prepare(name: str, folder: Path) -> shipped.Prepared | UserError:
    try:
        one = shipped.prepare(name, folder=folder)
        one.flat  # noqa: B018  worked out here, in the worker
        return one
    except UserError as error:
        return error


def _check(study: design.Study, options: argparse.Namespace) -> int:
    pairs = _pairs(study, options)
    names = [design.script_name(arm, pair.name) for pair in pairs for arm in pair.arms]
    problems = [f"{name}: {what}" for name, what in scripts.drift(study, options.folder).items()]
    configs: dict[str, shipped.Prepared] = {}
    for name, one in prepared_scripts([n for n in names if (options.folder / n).is_file()], options.folder):
        if isinstance(one, UserError):
            problems.append(f"{name}: {one}")
        else:
            configs[name] = one
    count = 0
    if len(configs) == len(names):
        count, found = check_factors(study, lambda arm, pair: configs[design.script_name(arm, pair)], pairs)
        problems += found
    effects = ""
    if options.effect and not problems:
        wanted = effect.comparisons(study, pairs)
        problems += effect.check(study, wanted, say=lambda text: _say([text]))
        effects = f"{len(wanted)} comparisons trained, "
    _say([*problems, f"{effects}{len(configs)} scripts compose, {count} comparisons of {len(study.factors)} factors, "
          f"{len(problems)} problems"])  # fmt: skip
    return 1 if problems else 0


def _plan(study: design.Study, options: argparse.Namespace) -> int:
    for name in ("steps", "seeds", "gpu_gib", "gpus", "efficiency"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value} must be above 0")
    small: list[str] = []
    plans: list[design_text.CostPlan] = []
    for pair in _pairs(study, options):
        arms = study.chosen(pair, options.arms, options.factor or ([] if options.arms else ["all"]))
        typed = [f"trainer.n_gpus_per_node={options.gpus}"] if options.gpus else []
        rows = [(arm, starting.prepare(arm, pair, typed, folder=options.folder)) for arm in arms]
        std = {"seed_std": options.seed_std} if options.seed_std is not None else {}
        costs = design_text.CostPlan(study, pair, rows, {
            "steps": options.steps,
            "seeds": options.seeds or study.detectable["seeds"],
            "result_dir": options.result,
            "machine": design_text.machine_with(study, pair, options.gpu_gib, options.efficiency),
            "detectable": study.detectable | std,
            "seed_std": options.seed_std is not None,
        })  # fmt: skip
        _say([*costs.lines(), ""])
        small += costs.too_small()
        plans.append(costs)
    if len(plans) > 1:
        _say(design_text.whole_study(plans))
    if small:
        more = f" (and {len(small) - 1} more arms)" if len(small) > 1 else ""
        raise UserError(small[0] + more)
    return 0
