"""Measure what each key of a run's config changes, and compare it with what Verl/trainer/effects.yaml says.

    python -m tests.benchmarks.effects measure [KEY ...]   # all keys of the table, or these; half an hour on two cores
    python -m tests.benchmarks.effects page                # docs/effects.md from the table and the last measurement

Every key is given another value in a two-step run on the embedded model, beside the settings (`beside`) under which the
table says that it matters, and once without these. One process carries out all runs (Verl/study/probe.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT
from Verl.design.declared import load
from Verl.files import write_atomic
from Verl.study import effect, probe, scripts
from Verl.trainer import settings
from Verl.trainer.effects import KeyEffect, effect_of, table

RESULTS = REPO_ROOT / "tests/benchmarks/results/effects.json"
PAGE = REPO_ROOT / "docs/effects.md"
LOG = REPO_ROOT / ".cache/effect/table.log"

# The run that one key at a time is changed in: every answer kept, a checkpoint, evaluations at both ends.
BASE = {
    "trainer.total_training_steps": 2, "trainer.total_epochs": 1000, "trainer.save_freq": 2, "trainer.test_freq": 1,
    "evaluation.val_freq": 2, "data.train_batch_size": 16, "actor_rollout_ref.rollout.n": 4, "data.train_max_samples": 16,
    "evaluation.train_questions": 8, "evaluation.val_questions": 8, "evaluation.test_questions": 8,
    "evaluation.final_samples": 1,
    "data.max_response_length": 16, "trainer.device": "cpu", "seed": 0,
}  # fmt: skip
_ARMS = {"grpo": "grpo_0032_8", "bandit": "onerpo_0032_1_7", "replay": "asyttgrpo_0064_4_8"}


def leaves(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and default of every key that holds a value."""
    for key in config:
        name, node = f"{prefix}{key}", config._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_missing() and len(node):
            yield from leaves(node, f"{name}.")
        else:
            yield name, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()


def known_keys() -> dict[str, tuple[str, Any]]:
    """Every leaf key of the three entry points: (the first entry point that has it, its default)."""
    found: dict[str, tuple[str, Any]] = {}
    for algorithm in settings.ALGORITHMS:
        for key, default in leaves(settings.defaults(algorithm, "cpu")):
            found.setdefault(key, (algorithm, default))
    return found


def another(default: Any) -> Any:
    """Another value of a key, from its default; None where only the table can say one."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default * 2 if default > 0 else 1
    if isinstance(default, float):
        return default / 2 if default else 0.1
    return None


def _base(algorithm: str) -> list[str]:
    study = load()
    name, scripted = scripts.arguments(study.arms[_ARMS[algorithm]], study.pairs[study.smallest])
    assert name == algorithm
    return [*scripted, *(f"{key}={value}" for key, value in BASE.items())]


def jobs_of(row: KeyEffect, algorithm: str, default: Any, base: list[str]) -> dict[str, probe.ProbeJob]:
    """The runs that tell what a key does: with and without it beside its settings, and with it alone if it has any."""
    value = row.tried if row.tried is not None else another(default)
    text = f"{row.key}={json.dumps(value) if not isinstance(value, str) else value}"
    beside = list(row.beside)
    if any(one.startswith("algorithm=") for one in beside):
        raise ValueError(f"{row.key}: name the entry point in `entry`")
    runs = {"without": [*base, *beside], "with": [*base, *beside, text]}
    if row.when and row.beside:
        runs["alone"] = [*base, text]
        runs["base"] = base
    return {kind: probe.ProbeJob(f"{row.key} ({kind})", algorithm, tuple(one)) for kind, one in runs.items()}


def seen(a: probe.Trace, b: probe.Trace) -> str:
    """What differs between two runs, the gravest first."""
    if b.refused or b.failed:
        return "refused" if b.refused else "failed"
    for what, fields in (("training", ("weights", "responses")), ("evaluation", ("evaluation",)),
                         ("files", ("metrics", "files"))):  # fmt: skip
        if any(getattr(a, field) != getattr(b, field) for field in fields):
            return what
    return "nothing"


def measure(only: Iterable[str]) -> int:
    """Run what the table's keys ask for; 0 if every measurement is what the table says."""
    only = set(only)
    keys = known_keys()
    study = load()
    effect.prepare(study.pairs[study.smallest])
    bases = {algorithm: _base(algorithm) for algorithm in settings.ALGORITHMS}
    plans: dict[str, dict[str, probe.ProbeJob]] = {}
    for key, (algorithm, default) in keys.items():
        row = effect_of(key)
        if row is None or row.is_group or not row.measured or (only and key not in only):
            continue
        plans[key] = jobs_of(row, row.entry or algorithm, default, bases[row.entry or algorithm])
    unique = {replace(job, name=""): job for jobs in plans.values() for job in jobs.values()}
    traces = {}
    for number, (job, trace) in enumerate(probe.run(unique.values(), LOG), 1):
        traces[replace(job, name="")] = trace
        print(f"[{number}/{len(unique)}] {job.name} {trace.refused or trace.failed}", flush=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for key, jobs in plans.items():
        found = {kind: traces[replace(job, name="")] for kind, job in jobs.items()}
        results[key] = {"value": jobs["with"].overrides[-1].partition("=")[2], "seen": seen(found["without"], found["with"])}
        if "alone" in found:
            results[key]["alone"] = seen(found["base"], found["alone"])
        said = found["with"].refused or found["with"].failed
        if said:
            results[key]["said"] = said
    results = {key: results[key] for key in keys if key in results and not (r := effect_of(key)).is_group and r.measured}
    write_atomic(RESULTS, json.dumps(results, indent=0) + "\n")
    wrong = disagreements(results)
    print("\n".join([*wrong, f"{len(plans)} keys measured, {len(wrong)} disagree with the table"]))
    return 1 if wrong else 0


_FITS = {
    "training": ("training",),
    "evaluation": ("evaluation",),
    "rounding": ("training", "evaluation", "files", "nothing"),
    "speed": ("nothing",),
    "files": ("files", "nothing"),
    "name": ("files", "nothing"),
    "nothing": ("nothing",),
}


def disagreements(results: dict[str, dict[str, str]]) -> list[str]:
    """Where the measurement is not what the table says."""
    found = []
    for key, result in results.items():
        row = effect_of(key)
        if row is None or row.is_group or not row.measured:
            continue
        fits = (*_FITS[row.what], *(("refused", "failed") if row.refused else ()))
        if result["seen"] not in fits:
            found.append(f"{key}={result['value']}: {result['seen']}, the table says {row.what}: {result.get('said', '')}")
        if row.when and row.beside and result.get("alone", "nothing") not in ("nothing", "refused", "failed"):
            found.append(f"{key}={result['value']}: {result['alone']} also without {', '.join(row.beside)}")
    return found


# ---- the page -----------------------------------------------------------------------------------------------------


def page() -> str:
    """docs/effects.md."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    keys = known_keys()
    rows = [row for row in table() if row.is_group or row.key in keys]
    counts = Counter(effect_of(key).what for key in keys if effect_of(key))
    lines = [
        "# What each key changes",
        "",
        "Written by `python -m tests.benchmarks.effects page` from `Verl/trainer/effects.yaml` and the measurement in",
        "`tests/benchmarks/results/effects.json`. *Changes*: training (weights or responses), evaluation, rounding (speed or",
        "memory; numbers by rounding alone), speed, files (what is logged or kept), name, nothing. *Seen*: what another value",
        "changed in a two-step run on the embedded model; a dash where that can't be measured there. A key that changes",
        "nothing under the run's other settings is refused when it is typed.",
        "",
        f"{len(keys)} keys: " + ", ".join(f"{what} {count}" for what, count in counts.most_common()) + ".",
        "",
        "| key | changes | only with | tried | seen | why nothing; instead |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = results.get(row.key, {})
        why = "; ".join(filter(None, [row.why, f"set `{row.instead}`" if row.instead else None]))
        lines.append(
            f"| `{row.key}` | {row.what} | {row.when.lower().replace('_', ' ') if row.when else ''} | "
            f"{_cell(result.get('value', ''))} | {result.get('seen', '–')} | {_cell(why)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("keys", nargs="*", help="only these keys")
    options = parser.parse_args()
    if options.what == "measure":
        return measure(options.keys)
    write_atomic(Path(PAGE), page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
