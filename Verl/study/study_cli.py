"""The command line of Running-Bash/run_study.sh: from arms and seeds to a queue, checked before the first run starts."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from Verl import RESULT_DIR, cores
from Verl.analysis.verdicts import deciding
from Verl.analysis.verdicts.judge import MARGIN, MARGIN_HELP, read_margin
from Verl.design import declared as design
from Verl.errors import UserError
from Verl.signals import raise_on_stop
from Verl.study import budgets, effect, hosts, jobs, plan, shipped, starting, study_options
from Verl.study.places import LocalPlaces, Places, RayPlaces
from Verl.study.runner import StudyRunner
from Verl.study.vary import StudyRequest, VariedArm
from Verl.trainer import preparation, run_folder
from Verl.trainer.memory_here import memory_by_plan
from Verl.trainer.settings import gpu_present
from Verl.trainer.verl_checks import check_with_verl
from Verl.wording import duration

_EXAMPLE = """exit status: 0 all runs are done; 1 a run failed twice; 2 bad input, nothing started; 130 interrupted

Started again, the same command goes on where it was cut: finished runs are skipped, others resume from their checkpoints.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    raise_on_stop()
    try:
        return _study(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _say("interrupted: the runs are stopped; the same command goes on from their checkpoints")
        return 130


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_study.sh", description="Runs arms of a pair on several seeds.", epilog=_EXAMPLE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--pair", required=True, help="model and data, e.g. tiny_arith (design.py show lists them)")
    add("--arms", nargs="+", default=[], help="e.g. grpo_0032_1 grpo_0032_8")
    add("--cells", dest="arms", nargs="+", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # in commands published earlier
    add("--factor", action="append", default=[], metavar="NAME", help="all arms of a factor (repeatable), or `all`")
    study_options.add_options(parser)
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    add("--steps", type=int, help="steps of each run; default: the script's")
    add("--budget", action="append", default=[], metavar="WHAT=N",
        help="end each run by tokens=N, gradient_samples=N or hours=N instead, whichever comes first")  # fmt: skip
    add("--name", help="names the table of states, study_<name>.json; default: the pair, with what varies")
    add("--until-decided", action="store_true",
        help="after --seeds, add seeds, one at a time, to what is still undecided (docs/statistics.md)")  # fmt: skip
    add("--against", metavar="ARM",
        help="what --until-decided, --vary or --tune compares with; default: --base, else the base line")  # fmt: skip
    add("--margin", type=read_margin, metavar="X", help=MARGIN_HELP)
    add("--max-seeds", type=int, default=None, metavar="N", help="the most that an arm gets (default: 10)")
    add("--jobs", type=int, default=1, help="runs at a time on this machine (default: 1)")
    add("--host", action=argparse.BooleanOptionalAction,
        help="keep Python, Ray and its workers from run to run (default: on a CPU); --no-host: a process per run")  # fmt: skip
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help="one run per GPU of the Ray cluster (default: auto)")
    add("--dry-run", action="store_true", help="check everything, list the runs, start nothing")
    add("--result", type=Path, help="folder of results; default: Running-Results/result")
    add("overrides", nargs="*", help="key=value for every run; put them last, after a lone --")
    add("--folder", type=Path, default=design.BASH, help=argparse.SUPPRESS)
    # What to start instead of `bash SCRIPT`, for tests: it gets the script's path and the overrides.
    add("--command", type=shlex.split, help=argparse.SUPPRESS)
    add("--poll", type=float, default=0.5, help=argparse.SUPPRESS)
    return parser


# ---- the queue ------------------------------------------------------------------------------------------------


def _study(options: argparse.Namespace) -> int:
    _tidy(options)
    study = design.load(options.folder / design.DESIGN_FILE.name)
    result_dir = (options.result or RESULT_DIR).resolve()
    request = study_options.read(study, study.pair(options.pair), options, _shared(options, result_dir))
    name = options.name or study_options.name_of(request, options)
    chosen = _chosen(request, options, result_dir)
    options.host = _hosted(options, chosen)
    rule = _rule(request, options, chosen)
    queue = _jobs(chosen, dict.fromkeys([one.arm for one in chosen], options.seeds))
    if study_options.has_own_table(options):
        rows = [(one.declared, one.prepared) for one in chosen]
        _say("\n".join(study_options.plan_lines(request, rows, options, result_dir)))
    if options.dry_run:
        for sentence in dict.fromkeys(sentence for one in chosen for sentence in one.prepared.missing):
            _say(f"not ready on this machine: {sentence}")
        if rule is not None:
            _say(f"looks after {', '.join(map(str, rule.plan.looks))} seeds; at the first:")
        for job in queue:
            _say(f"{job.run}: {'done' if jobs.finished(result_dir, job) else 'to do'}")
        return 0
    with jobs.only_one(result_dir / f".study_{name}.lock", name):
        if not options.command:
            _refuse_inert(request, chosen, options.overrides)
        if options.save:
            _say(study_options.save(study, request, options))
        places = _places(options)
        raise_on_stop()  # ray.init has its own handler of SIGTERM
        path = result_dir / f"study_{name}.json"
        try:
            if rule is not None:
                status = _until_decided(rule, options, options.pair, path, places, partial(_jobs, chosen))
            else:
                status = _carry_out(jobs.Table(path, name, options.pair, queue), places, result_dir, options)
        finally:
            places.close()
    if study_options.has_own_table(options):
        arm_of = {one.declared.name: one.arm for one in chosen}
        _say("\n".join(study_options.outcome_lines(request, arm_of, name, options, result_dir)))
    return status


def _hosted(options: argparse.Namespace, chosen: Sequence[ChosenArm]) -> bool:
    """Whether runs share processes: as typed; else where all of them can."""
    configs = {one.arm: one.prepared.config for one in chosen}
    if options.host and options.ray:
        raise UserError("--host keeps processes on this machine, --ray starts runs on a cluster: leave one of them out")
    if options.host:
        hosts.check(configs)
    if options.host is None:
        return not (options.ray or options.command) and all(map(hosts.can_share, configs.values()))
    return options.host


def _places(options: argparse.Namespace) -> Places:
    if options.ray:
        return RayPlaces(options.ray)
    return hosts.HostedPlaces(options.jobs, _say) if options.host else LocalPlaces(options.jobs)


def _rule(request: StudyRequest, options: argparse.Namespace, chosen: list[ChosenArm]) -> deciding.Rule | None:
    """The stopping rule of --until-decided; its own options are nothing without it."""
    if not options.until_decided:
        # A study with a table of its own compares its arms there, whatever stops it.
        for name in ("max_seeds",) if study_options.has_own_table(options) else ("against", "margin", "max_seeds"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} is for --until-decided: add that, or leave it out")
        return None
    if options.budget:
        raise UserError("--until-decided compares the arms at the same step: give --steps instead of --budget")
    name_in_runs = {one.declared.name: one.arm for one in chosen}
    reference = options.against or request.reference
    for one in chosen:
        if one.prepared.config.trainer.test_freq <= 0 or one.prepared.config.evaluation.test_questions == 0:
            raise UserError("--until-decided needs test evaluations: leave trainer.test_freq and evaluation.test_questions")
    arms = [one.arm for one in chosen]
    margin = MARGIN if options.margin is None else options.margin
    most = 10 if options.max_seeds is None else options.max_seeds
    return deciding.rule_of(name_in_runs.get(reference, reference), arms, options.seeds, most, margin)


def _until_decided(rule, options, pair: str, path: Path, places: Places, jobs_of) -> int:
    """Runs and looks by turns; the table of states always says why each arm goes on or stops."""
    result_dir = path.parent
    tables: list[jobs.Table] = []

    def run(seeds_of, decided) -> bool:
        table = jobs.Table(path, path.stem.removeprefix("study_"), pair, jobs_of(seeds_of))
        table.decisions = decided
        tables.append(table)
        return _carry_out(table, places, result_dir, options) == 0

    def record(decided) -> None:
        tables[-1].decisions = decided
        tables[-1].write()

    def judge(seeds_of, earlier):
        return deciding.look(result_dir, pair, rule, seeds_of, earlier)

    return 0 if deciding.until_decided(rule, run, judge, _say, record) else 1


def _carry_out(table: jobs.Table, places: Places, result_dir: Path, options: argparse.Namespace) -> int:
    if places.count < 1:
        raise UserError("--ray: the cluster has no GPU")
    # A trainer brings a Ray of its own up: it must not join another run's, or the cluster's.
    environment = {"RAY_ADDRESS": "local"}
    if options.jobs > 1 and "BANDIT_THREADS" not in os.environ:
        environment["BANDIT_THREADS"] = str(max(1, cores.usable() // options.jobs))

    def command(job: jobs.Job) -> list[str]:
        script = options.folder.resolve() / job.script
        if options.command:
            return [*options.command, str(script), *job.overrides]
        return starting.command(script, job.algorithm, job.unscripted, job.overrides)

    _say(f"study {table.study}: states in {os.path.relpath(table.path)}")
    all_done = StudyRunner(table, places, result_dir, command, environment, _say, poll=options.poll).run()
    spent = sum(job.seconds for job in table.jobs)
    _say(f"{table.count(jobs.DONE)} of {len(table.jobs)} runs done ({duration(spent)} of computing)")
    for job in table.jobs:
        if job.state == jobs.FAILED:
            _say(f"failed: {job.title}: {job.reason}")
    return 0 if all_done else 1


def _tidy(options: argparse.Namespace) -> None:
    """Overrides that follow --arms without a `--` are found by their `=`; values that can't be are refused."""
    options.overrides += [text for text in options.arms if "=" in text]
    options.arms = [text for text in options.arms if "=" not in text]
    for text in options.overrides:
        key = text.lstrip("+").split("=")[0]
        if key in ("seed", "run.result_dir", "run.overwrite", "trainer.total_training_steps"):
            instead = {"seed": "--seeds", "run.result_dir": "--result", "trainer.total_training_steps": "--steps"}.get(key)
            remedy = f"give {instead} instead" if instead else "remove the runs' folders instead"
            raise UserError(f"{text} can't be an override of a study: {remedy}")
        if "=" not in text:
            raise UserError(f"can't read {text!r}: overrides are written key=value")
    if any(seed < 0 for seed in options.seeds):
        raise UserError(f"--seeds {min(options.seeds)}: seeds are whole numbers from 0 up")
    for name in ("steps", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
    if options.name and not re.fullmatch(r"[A-Za-z0-9._-]+", options.name):
        raise UserError(f"--name {options.name!r}: letters, digits, points, dashes and underscores only")


@dataclass(frozen=True)
class ChosenArm:
    """An arm as it would run: its config at seed 0, its work, and what every run of the study is given."""

    declared: design.Arm
    prepared: shipped.Prepared
    work: plan.Workload
    shared: tuple[str, ...]

    @property
    def stem(self) -> str:
        """A run's name without its seed."""
        return self.prepared.name.removesuffix("_seed0")

    @property
    def arm(self) -> str:
        """Its name in the runs: what every run is given can add to the declared name."""
        return self.prepared.config.run.arm

    def visits(self, questions: int) -> int:
        """How often a run asks a question, the last round through the data counted as a whole one."""
        limit = self.prepared.config.data.train_max_samples
        asked = min(questions, limit) if limit > 0 else questions
        return math.ceil(self.work.steps * self.prepared.config.data.train_batch_size / asked)


def _shared(options: argparse.Namespace, result_dir: Path) -> list[str]:
    """What every run of the study is given."""
    # Given only where it is asked for: a run's recorded command then is one that anybody can give.
    elsewhere = [f"run.result_dir={result_dir}"] if options.result else []
    steps = [f"trainer.total_training_steps={options.steps}"] if options.steps else []
    return [*elsewhere, *budgets.overrides(options.budget), *options.overrides, *steps]


def _chosen(request: StudyRequest, options: argparse.Namespace, result_dir: Path) -> list[ChosenArm]:
    """The arms, each checked."""
    shared, questions = _shared(options, result_dir), request.study.data[request.pair.data]
    return [_ready(arm, request.maker.prepared(arm.start, arm.levels), shared, options, questions) for arm in request.arms]


def _ready(arm: VariedArm, one: shipped.Prepared, shared: list[str], options: argparse.Namespace, questions) -> ChosenArm:
    if not (options.command or options.dry_run):
        _refuse_if_missing(one)
    if not options.command:
        if (planned := memory_by_plan(one.config)) and planned[1]:
            raise UserError(planned[1])
        check_with_verl(one.config)
    work = plan.workload(one.config, questions, options.steps)
    budgets.refuse_out_of_reach(options.budget, arm.name, work, one.config, questions["train"])
    return ChosenArm(arm.declared, one, work, (*arm.levels, *shared))


def _jobs(chosen: Sequence[ChosenArm], seeds_of: Mapping[str, Sequence[int]]) -> list[jobs.Job]:
    """Every (arm, seed) once; a cut study holds whole seeds, so that its arms can already be compared."""
    queue: dict[str, jobs.Job] = {}
    for seed in dict.fromkeys(seed for seeds in seeds_of.values() for seed in seeds):
        for one in chosen:
            run = f"{one.stem}_seed{seed}"
            if run in queue or seed not in seeds_of[one.arm]:  # overrides can make one arm of two
                continue
            work = one.work
            queue[run] = jobs.Job(
                run=run, arm=one.declared.name, seed=seed, script=one.prepared.script,
                overrides=[f"seed={seed}", *one.shared], config_hash=one.prepared.hash, steps=work.steps,
                work=work.steps * work.responses + work.evaluated, ends=run_folder.ends_of(one.prepared.config),
                algorithm=one.prepared.algorithm, unscripted=list(one.prepared.unscripted),
            )  # fmt: skip
    return list(queue.values())


def _queue(study: design.Study, pair: design.Pair, options: argparse.Namespace, result_dir: Path) -> list[jobs.Job]:
    """The runs of a study with a fixed number of seeds."""
    chosen = _chosen(study_options.read(study, pair, options, _shared(options, result_dir)), options, result_dir)
    return _jobs(chosen, dict.fromkeys([one.arm for one in chosen], options.seeds))


def _refuse_inert(request: StudyRequest, chosen: Sequence[ChosenArm], overrides: list[str]) -> None:
    """Before the first run: two arms that train the same would cost their hours and show a difference of chance."""
    visits = {one.declared.name: one.visits(request.study.data[request.pair.data]["train"]) for one in chosen}
    wanted = effect.comparisons(request.study, [request.pair], list(visits), visits)
    problems = effect.check(request.study, wanted, overrides, _say)
    if problems:
        raise UserError("; ".join(problems))


def _refuse_if_missing(one: shipped.Prepared) -> None:
    """What a run does not prepare by itself must be there."""
    prepared = "|".join(re.escape(entry.folder) for entry in preparation.wanted(one.config).values())
    made_by_the_run = re.compile(rf"^(actor_rollout_ref\.model\.path=|data\.\w+_files: )({prepared})\b")
    for sentence in one.missing:
        if one.config.trainer.device == "cuda" and gpu_present() and "Hugging Face Hub" in sentence:
            continue  # looked up without the network here; the run fetches it
        if not (prepared and made_by_the_run.match(sentence)):
            raise UserError(f"{one.config.run.arm if one.unscripted else one.script}: {sentence}")


if __name__ == "__main__":
    sys.exit(main())
