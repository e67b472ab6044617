"""The effect check: do two arms that are compared end with different weights, and not only with different configs?

Both arms of every comparison are trained for two steps on the smallest pair of study.yaml (`smallest`), with one seed. Arms
that end with the same weights and the same evaluation are inert: what they declare trains nothing. What an arm left is kept
under .cache/effect by its settings, code, model and data, so that it is paid for once.

Two things make a trial short and change nothing of the question. All batches of a factor are divided by the same number, so
that its arms differ as before (`_divisor`). And a factor with a history of rewards gets as many training questions as its
largest batch has, so that every query comes back in step 2, where a history first matters; all others share one number of
questions, so that an arm of several factors is trained once. Where the study itself asks a question less often than the trial
has steps, the trial has as many steps as the study has visits: histories that it never reads can't differ.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from Verl import REPO_ROOT
from Verl.data.recipe import outdated
from Verl.design.declared import Arm, Factor, Pair, Study
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.provenance import versions
from Verl.study import probe, scripts
from Verl.trainer import identity, preparation, settings
from Verl.trainer.effects import effect_of
from Verl.trainer.ppo import conditions

CACHE = REPO_ROOT / ".cache" / "effect"
STEPS = 2
QUERIES = 16  # the least that a batch is divided to
_STEPS = "trainer.total_training_steps"
MINI_BATCH = "actor_rollout_ref.actor.ppo_mini_batch_size"  # divided along with the batch
QUESTIONS = 256  # of the trials without a history of rewards, and as many as the largest undivided batch at least
# What makes a trial short; a key that a factor declares keeps the arm's own value.
SHORT = {
    _STEPS: STEPS,
    "trainer.total_epochs": 1000,
    "trainer.save_freq": -1,
    "trainer.test_freq": 1000,  # so at both ends
    "trainer.val_before_train": False,
    "evaluation.val_freq": -1,
    "evaluation.test_questions": 16,
    "evaluation.final_samples": 1,
    # Responses get longer while a run goes on: what the first two steps of the full length don't cut off, later ones may.
    "data.max_response_length": 16,
    "trainer.device": "cpu",
    "seed": 0,
}


@dataclass(frozen=True)
class TrialComparison:
    """Two arms that a factor compares; the number of training questions of their trials, and what divides their batches.

    visits: how often the study asks a question, where that limits what a history can do.
    """

    factor: Factor
    a: Arm
    b: Arm
    questions: int
    divisor: int = 1
    visits: int | None = None

    @property
    def steps(self) -> int:
        """Of its trials."""
        own = [int(text.partition("=")[2]) for text in self.factor.trial if text.startswith(f"{_STEPS}=")]
        return min((own or [STEPS])[-1], self.visits or 2**31)


def comparisons(
    study: Study, pairs: Iterable[Pair], arms: Iterable[str] | None = None, visits: Mapping[str, int] | None = None
) -> list[TrialComparison]:
    """Every comparison of every factor on the given pairs, each once; only those between `arms`, if given.

    A factor's comparisons are given the same number of questions, so that an arm that is in several is trained once. Of the
    given arms, those that no factor compares are compared with the first of them.

    Args:
        visits: how often the study asks each question under an arm, begun rounds through the data included.
    """
    wanted = None if arms is None else set(arms)
    found: dict[tuple[str, str, str], TrialComparison] = {}
    for factor in study.factors.values():
        names = [two for pair in pairs for two in pair.comparisons(factor)]
        if factor.gpu and not names:  # on no pair's list: trained here under `trial`, which makes what a CPU lacks
            names = factor.comparisons(factor.members)
        members = [study.arms[name] for name in dict.fromkeys(name for two in names for name in two)]
        divisor = _divisor(members)
        for a, b in names:
            if wanted is not None and not {a, b} <= wanted:
                continue
            one, other = study.arms[a], study.arms[b]
            questions = _questions(factor, members, (one, other)) // divisor
            known = [visits[name] for name in (a, b) if name in visits] if visits and _remembers((one, other)) else []
            found[factor.name, a, b] = TrialComparison(factor, one, other, questions, divisor, max(known, default=None))
    return [*found.values(), *_uncompared(study, list(arms or ()), found.values())]


def _uncompared(study: Study, arms: list[str], found: Iterable[TrialComparison]) -> list[TrialComparison]:
    """Arms of a study that no factor compares, each with the study's first: a user may ask for any. Without those that need a
    factor's `trial` to be tried here at all."""
    left_out = {arm.name for one in found for arm in (one.a, one.b)}
    left_out |= {name for factor in study.factors.values() if factor.trial or factor.gpu for name in factor.members}
    members = [study.arms[name] for name in dict.fromkeys(arms) if name == arms[0] or name not in left_out]
    keys = tuple(sorted({text.partition("=")[0] for arm in members for text in arm.settings}))
    factor = Factor(name="arms of the study", title="", keys=keys or ("algorithm.adv_estimator",))
    questions = _questions(factor, members, (members[0], members[-1])) if members else 0
    return [TrialComparison(factor, members[0], other, questions) for other in members[1:]]


def _remembers(members: Iterable[Arm]) -> bool:
    return any(arm.window is not None for arm in members)


def _divisor(members: Iterable[Arm]) -> int:
    """The largest power of two that leaves each batch at least QUERIES queries, and each mini-batch a whole number."""
    found = math.gcd(*(arm.queries for arm in members), 2**20) // QUERIES or 1
    return math.gcd(found, *(size for arm in members for size in _mini_batches(arm.settings)))


def _mini_batches(texts: Iterable[str]) -> list[int]:
    return [int(text.partition("=")[2]) for text in texts if text.startswith(f"{MINI_BATCH}=")]


def _questions(factor: Factor, members: Iterable[Arm], two: tuple[Arm, Arm]) -> int:
    """Training questions before the division."""
    if _remembers(members):
        return max(arm.queries for arm in (members if factor.arms else two))
    return max(QUESTIONS, *(arm.queries for arm in members))


def check(
    study: Study, wanted: list[TrialComparison], overrides: Iterable[str] = (), say: Callable[[str], None] = print
) -> list[str]:
    """Train what is not known yet; a sentence for each comparison whose arms can't be trained or do not differ.

    Args:
        overrides: what every run of the study is given on top (key=value).
    """
    smallest = study.pairs[study.smallest]
    prepare(smallest)
    jobs = {
        (one.factor.name, arm.name, one.questions): trial(arm, smallest, one, overrides)
        for one in wanted
        for arm in (one.a, one.b)
    }
    _draw_sets(jobs.values())
    traces = _traces(set(jobs.values()), say)
    problems = []
    for one in wanted:
        a, b = (traces[jobs[one.factor.name, arm.name, one.questions]] for arm in (one.a, one.b))
        problem = _problem(one, a, b)
        if problem:
            problems.append(f"factor {one.factor.name}: {problem}")
    divisors = {one.factor.name: one.divisor for one in wanted}
    alike = {  # under equal conditions, two arms that end alike are one
        (arm, (questions, divisors[factor])): traces[job] for (factor, arm, questions), job in jobs.items()
    }
    twins = _twins(alike, wanted)
    return list(dict.fromkeys(problems + twins))


def _twins(traces: Mapping[tuple[str, tuple[int, int]], probe.Trace], wanted: list[TrialComparison]) -> list[str]:
    """Arms that no factor compares with each other and that train the same all the same: a study would count one twice.

    The responses count too: arms that don't train at all (learning rate 0) end with the weights that all begin with.
    """
    compared = {frozenset((one.a.name, one.b.name)) for one in wanted}
    first: dict[tuple[tuple[int, int], str, str], str] = {}
    found = []
    for (arm, conditions_of), trace in traces.items():
        if not trace.weights:
            continue
        other = first.setdefault((conditions_of, trace.weights, trace.responses), arm)
        if other != arm and frozenset((other, arm)) not in compared:
            found.append(f"{other} and {arm} are one arm: the same responses, and the same weights after {STEPS} steps")
    return found


def _problem(one: TrialComparison, a: probe.Trace, b: probe.Trace) -> str | None:
    for arm, trace in ((one.a, a), (one.b, b)):
        if trace.refused or trace.failed:
            return f"{arm.name} can't be trained: {trace.refused or trace.failed}"
    if a.weights == b.weights and a.evaluation == b.evaluation:
        why = _too_few_visits(one) or _reason(one) or "what they declare trains nothing under their other settings"
        return (
            f"{one.a.name} and {one.b.name} end with the same weights after {one.steps} step{'s' * (one.steps > 1)}, although "
            f"they differ in {', '.join(one.factor.keys)}: {why}"
        )
    return None


def _too_few_visits(one: TrialComparison) -> str | None:
    if one.visits is None or one.steps > one.visits or one.steps == replace(one, visits=None).steps:
        return None
    return (
        f"the study asks a question {one.visits} time{'s' * (one.visits > 1)} at most, and until then their histories make no "
        "difference; take more steps, or fewer training questions (data.train_max_samples)"
    )


def _reason(one: TrialComparison) -> str | None:
    """What the effect table says of the keys in which two arms differ."""
    keys = [text.split("=")[0] for text in (*one.a.settings, *one.b.settings)] or one.factor.keys
    for key in keys:
        row = effect_of(key)
        if row is not None and row.what == "nothing":
            return row.why_inert(OmegaConf.create({}))
        if row is not None and row.when:
            return getattr(conditions, row.when).otherwise
    return None


def trial(arm: Arm, smallest: Pair, one: TrialComparison, overrides: Iterable[str] = ()) -> probe.ProbeJob:
    """The two-step run of an arm: its script's settings on the smallest pair, cut short."""
    algorithm, scripted = scripts.arguments(arm, smallest)
    # The user's overrides, without those that a trial has its own of (model, data, device, steps).
    own = [text for text in overrides if not _replaced(text)]
    given = [*scripted, *own]
    divisor = one.divisor
    if any(text.startswith("data.train_batch_size=") for text in own) or any(n % divisor for n in _mini_batches(given)):
        divisor = 1  # as typed, for both arms
    questions = one.questions * one.divisor // divisor
    given = [_divided(text, divisor) for text in given]
    short = {**SHORT, "data.train_max_samples": questions, **_data(smallest, questions)}
    cut = [f"{key}={value}" for key, value in short.items() if not _declared(key, one.factor.keys)]
    # The arm's name is not among the settings: two arms of the same settings are the same run.
    settings = [text for text in (*given, *cut, *one.factor.trial) if not text.startswith("run.variant=")]
    if one.steps < replace(one, visits=None).steps:
        settings.append(f"{_STEPS}={one.steps}")
    return probe.ProbeJob(f"{arm.name} on {questions} questions", algorithm, tuple(settings))


def _divided(text: str, divisor: int) -> str:
    key, _, value = text.partition("=")
    return f"{key}={int(value) // divisor}" if key in ("data.train_batch_size", MINI_BATCH) else text


def _declared(key: str, keys: Iterable[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _replaced(text: str) -> bool:
    key = text.lstrip("+").split("=")[0]
    return key in SHORT or key.startswith(("run.", "budget.", "trainer.", "evaluation.")) or key in (
        "model", "data", "actor_rollout_ref.model.path", "data.train_files", "data.val_files", "data.test_files",
    )  # fmt: skip


def _data(smallest: Pair, questions: int) -> dict[str, str]:
    """The files of a set of the smallest pair's kind: enough to train on, and few questions to evaluate at the end."""
    if smallest.data != "arith":
        return {}
    folder = (CACHE / f"arith_{max(512, questions)}").relative_to(REPO_ROOT)
    names = {"train_files": "train", "val_files": "validation", "test_files": "test"}
    return {f"data.{key}": str(folder / f"{split}.parquet") for key, split in names.items()}


def _draw_sets(jobs: Iterable[probe.ProbeJob]) -> None:
    """Write the sets that `_data` names, where they are missing."""
    files = {text.partition("=")[2] for job in jobs for text in job.overrides if text.startswith("data.train_files=")}
    for folder in {(REPO_ROOT / file).parent for file in files}:
        if folder.parent == CACHE and outdated(folder):
            from Verl.data.arithmetic import prepare as draw

            draw(folder, sizes={"train": int(folder.name.removeprefix("arith_")), "validation": 16, "test": 16})


def prepare(pair: Pair) -> None:
    """The pair's model and data, as its scripts prepare them on first use.

    Raises:
        UserError: they can't be prepared.
    """
    config = settings.compose("grpo", [f"model={pair.model}", f"data={pair.data}"])
    if preparation.prepare(config, output=sys.stderr):
        raise UserError(f"the smallest pair {pair.name} can't be prepared, and the effect check trains on it")


# ---- what is known already ----------------------------------------------------------------------------------------


def _traces(jobs: set[probe.ProbeJob], say: Callable[[str], None]) -> Mapping[probe.ProbeJob, probe.Trace]:
    known = {job: trace for job in jobs if (trace := _known(job)) is not None}
    new = sorted(jobs - known.keys(), key=lambda job: job.name)
    # Two arms of the same settings are one run, whatever they are called.
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


def _known(job: probe.ProbeJob) -> probe.Trace | None:
    try:
        return probe.Trace(**json.loads(_path(job).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _path(job: probe.ProbeJob) -> Path:
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
