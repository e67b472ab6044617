"""The effect check: do two arms that are compared end with different weights, and not only with different configs?

Both cells of every comparison are trained for two steps on the smallest pair of study.yaml (`smallest`), with one seed, on
as many training questions as the larger of their batches has: then every query comes back in step 2, which is where a history
of rewards first matters. Cells that end with the same weights and the same evaluation are inert: what they declare trains
nothing. What a cell left is kept under .cache/effect by its settings, code, model and data, so that it is paid for once.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from Verl import REPO_ROOT
from Verl.data.recipe import outdated
from Verl.design.declared import Cell, Factor, Pair, Study
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.provenance import versions
from Verl.study import probe, scripts
from Verl.trainer import conditions, identity, preparation, settings
from Verl.trainer.effects import effect_of

CACHE = REPO_ROOT / ".cache" / "effect"
STEPS = 2
# What makes a trial short; a key that a factor declares keeps the cell's own value.
SHORT = {
    "trainer.total_training_steps": STEPS,
    "trainer.total_epochs": 1000,
    "trainer.save_freq": -1,
    "trainer.test_freq": 1000,  # so at both ends
    "evaluation.val_freq": -1,
    "evaluation.test_questions": 16,
    "evaluation.final_samples": 1,
    "data.max_response_length": 16,
    "trainer.device": "cpu",
    "seed": 0,
}


@dataclass(frozen=True)
class Comparison:
    """Two cells that a factor compares, and the number of training questions that their trials are given."""

    factor: Factor
    a: Cell
    b: Cell
    questions: int


def comparisons(study: Study, pairs: Iterable[Pair], cells: Iterable[str] | None = None) -> list[Comparison]:
    """Every comparison of every factor on the given pairs, each once; only those between `cells`, if given.

    A factor's comparisons are given the same number of questions, so that a cell that is in several is trained once.
    """
    wanted = None if cells is None else set(cells)
    found: dict[tuple[str, str, str], Comparison] = {}
    for factor in study.factors.values():
        of_factor = [
            (study.cells[a], study.cells[b])
            for pair in pairs
            for a, b in pair.comparisons(factor)
            if wanted is None or {a, b} <= wanted
        ]
        largest = max((cell.queries for two in of_factor for cell in two), default=0)
        for a, b in of_factor:
            questions = largest if factor.cells else max(a.queries, b.queries)
            found[factor.name, a.name, b.name] = Comparison(factor, a, b, questions)
    return list(found.values())


def check(
    study: Study, wanted: list[Comparison], overrides: Iterable[str] = (), say: Callable[[str], None] = print
) -> list[str]:
    """Train what is not known yet; a sentence for each comparison whose cells can't be trained or do not differ.

    Args:
        overrides: what every run of the study is given on top (key=value).
    """
    smallest = study.pairs[study.smallest]
    prepare(smallest)
    jobs = {
        (one.factor.name, cell.name, one.questions): trial(cell, smallest, one, overrides)
        for one in wanted
        for cell in (one.a, one.b)
    }
    traces = _traces(set(jobs.values()), say)
    problems = []
    for one in wanted:
        a, b = (traces[jobs[one.factor.name, cell.name, one.questions]] for cell in (one.a, one.b))
        problem = _problem(one, a, b)
        if problem:
            problems.append(f"factor {one.factor.name}: {problem}")
    twins = _twins({(cell, questions): traces[job] for (_, cell, questions), job in jobs.items()}, wanted)
    return list(dict.fromkeys(problems + twins))


def _twins(traces: Mapping[tuple[str, int], probe.Trace], wanted: list[Comparison]) -> list[str]:
    """Cells that no factor compares with each other and that are the same arm all the same: a study would count it twice."""
    compared = {frozenset((one.a.name, one.b.name)) for one in wanted}
    first: dict[tuple[int, str], str] = {}
    found = []
    for (cell, questions), trace in traces.items():
        if not trace.weights:
            continue
        other = first.setdefault((questions, trace.weights), cell)
        if other != cell and frozenset((other, cell)) not in compared:
            found.append(f"{other} and {cell} are one arm: they end with the same weights after {STEPS} steps")
    return found


def _problem(one: Comparison, a: probe.Trace, b: probe.Trace) -> str | None:
    for cell, trace in ((one.a, a), (one.b, b)):
        if trace.refused or trace.failed:
            return f"{cell.name} can't be trained: {trace.refused or trace.failed}"
    if a.weights == b.weights and a.evaluation == b.evaluation:
        return (
            f"{one.a.name} and {one.b.name} end with the same weights after {STEPS} steps, although they differ in "
            f"{', '.join(one.factor.keys)}: {_reason(one) or 'what they declare trains nothing under their other settings'}"
        )
    return None


def _reason(one: Comparison) -> str | None:
    """What the effect table says of the keys in which two cells differ."""
    keys = [text.split("=")[0] for text in (*one.a.settings, *one.b.settings)] or one.factor.keys
    for key in keys:
        row = effect_of(key)
        if row is not None and row.what == "nothing":
            return row.why_inert(OmegaConf.create({}))
        if row is not None and row.when:
            return getattr(conditions, row.when).otherwise
    return None


def trial(cell: Cell, smallest: Pair, one: Comparison, overrides: Iterable[str] = ()) -> probe.Job:
    """The two-step run of a cell: its script's settings on the smallest pair, cut short."""
    algorithm, scripted = scripts.arguments(cell, smallest)
    short = {**SHORT, "data.train_max_samples": one.questions, **_data(smallest, one.questions)}
    declared = one.factor.keys
    cut = [f"{key}={value}" for key, value in short.items() if not _declared(key, declared)]
    # The user's overrides, without those that a trial has its own of (model, data, device, steps).
    own = [text for text in overrides if not _replaced(text)]
    # The cell's name is not among the settings: two cells of the same settings are the same run.
    settings = [text for text in (*scripted, *own, *cut) if not text.startswith("run.variant=")]
    return probe.Job(f"{cell.name} on {one.questions} questions", algorithm, tuple(settings))


def _declared(key: str, keys: Iterable[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _replaced(text: str) -> bool:
    key = text.lstrip("+").split("=")[0]
    return key in SHORT or key.startswith(("run.", "budget.", "trainer.", "evaluation.")) or key in (
        "model", "data", "actor_rollout_ref.model.path", "data.train_files", "data.val_files", "data.test_files",
    )  # fmt: skip


def _data(smallest: Pair, questions: int) -> dict[str, str]:
    """Where the smallest pair has too few questions for a batch, a larger set of the same kind, written once."""
    if smallest.data != "arith" or questions <= 512:
        return {}
    folder = CACHE / f"arith_{questions}"
    if outdated(folder):
        from Verl.data.arithmetic import prepare as draw

        draw(folder, sizes={"train": questions, "validation": 16, "test": 16})
    names = {"train_files": "train", "val_files": "validation", "test_files": "test"}
    return {f"data.{key}": str((folder / f"{split}.parquet").relative_to(REPO_ROOT)) for key, split in names.items()}


def prepare(pair: Pair) -> None:
    """The pair's model and data, as its scripts prepare them on first use.

    Raises:
        UserError: they can't be prepared.
    """
    config = settings.compose("grpo", [f"model={pair.model}", f"data={pair.data}"])
    if preparation.prepare(config, output=sys.stderr):
        raise UserError(f"the smallest pair {pair.name} can't be prepared, and the effect check trains on it")


# ---- what is known already ----------------------------------------------------------------------------------------


def _traces(jobs: set[probe.Job], say: Callable[[str], None]) -> Mapping[probe.Job, probe.Trace]:
    known = {job: trace for job in jobs if (trace := _known(job)) is not None}
    new = sorted(jobs - known.keys(), key=lambda job: job.name)
    # Two cells of the same settings are one run, whatever they are called.
    by_settings = {replace(job, name=""): job for job in new}
    if by_settings:
        say(f"effect check: {len(by_settings)} trials of {STEPS} steps, {len(known)} known already")
    found = {}
    for number, (job, trace) in enumerate(probe.run(by_settings.values(), CACHE / "trials.log"), 1):
        found[replace(job, name="")] = trace
        say(f"  [{number}/{len(by_settings)}] {job.name}{': ' + (trace.refused or trace.failed) if not trace.weights else ''}")
        if trace.weights:  # a failure may pass
            write_atomic(_path(job), json.dumps(asdict(trace)) + "\n")
    return {**known, **{job: found[replace(job, name="")] for job in new}}


def _known(job: probe.Job) -> probe.Trace | None:
    try:
        return probe.Trace(**json.loads(_path(job).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _path(job: probe.Job) -> Path:
    config = settings.compose(job.algorithm, job.overrides)
    model = REPO_ROOT / config.actor_rollout_ref.model.path
    files = (*model.glob("*"), *(REPO_ROOT / config.data[key] for key in ("train_files", "val_files", "test_files")))
    text = json.dumps([job.algorithm, job.overrides, _code(), identity.sha256_of(files, below=REPO_ROOT)])
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


@cache
def _code() -> list:
    """What a trial rests on besides its settings and files: packages, our code, our defaults."""
    defaults = identity.sha256_of(settings.CONFIG_DIR.rglob("*.yaml"), below=settings.CONFIG_DIR)
    return [versions(), identity.code(), defaults]
