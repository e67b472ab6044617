"""What the runs stood on, from the run.json of each: are compared arms alike in everything but what they declare?

`stands_on` of run.json is a flat dictionary of fingerprints (data files, model, tokenizer, chat template, reward function,
code, versions, device, threads; `Verl/trainer/identity.py`). A run from before there was one has its commit, its versions
and its processor, and the rest is said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from Verl.analysis.runs.packed import read_text
from Verl.analysis.runs.run_file import listed

_FINGERPRINT = 64  # characters of a SHA-256: its first eight are shown
_UNKNOWN = "data, model, code, device and threads"


@dataclass(frozen=True)
class Foundation:
    """What one run stood on. ``whole``: whether it recorded all of it."""

    entries: Mapping[str, str]
    whole: bool


def _record(result_dir: Path, run: str) -> dict[str, Any]:
    try:
        record = json.loads(read_text(result_dir / run / "run.json"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _part(record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    return value if isinstance(value, kind) else kind()


def foundation_of(record: Mapping[str, Any]) -> Foundation:
    """Of a run.json. Data files count by content: the same files in another folder are the same."""
    stands_on = _part(record, "stands_on", dict)
    entries = {f"version.{name}": str(value) for name, value in _part(record, "versions", dict).items()}
    others = {"commit": record.get("commit"), "processor": _part(record, "host", dict).get("processor")}
    entries |= {key: str(value) for key, value in others.items() if value}
    if not stands_on:
        return Foundation(entries, whole=False)
    files: dict[str, list[str]] = {}
    for key, value in stands_on.items():
        name, _, path = str(key).partition("/")
        if path:
            files.setdefault(name, []).append(str(value))
        else:
            entries[name] = str(value)
    entries |= {name: " ".join(sorted(values)) for name, values in files.items()}
    if "code" in entries:  # the commit of another folder's files says less
        entries.pop("commit", None)
    return Foundation(entries, whole=True)


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return " ".join(one[:8] if len(one) == _FINGERPRINT else one for one in value.split(" "))


def differing(runs: Sequence[Foundation]) -> list[str]:
    """What several runs do not share, in words: `code (1f0c8d7e and 99ab0412)`.

    Entries that a run could not have recorded are not compared with it: those of `stands_on` only among runs that have it.
    """
    whole = [run for run in runs if run.whole]
    keys = {key for run in runs for key in run.entries}
    words = []
    for key in sorted(keys):
        recorded = [run.entries.get(key) for run in runs if key in run.entries]
        absent = [run for run in whole if key not in run.entries] if key not in ("commit", "processor") else []
        if key.startswith("version."):  # run.json lists more packages than stands_on
            absent = []
        values = list(dict.fromkeys([*recorded, *[None] * bool(absent)]))
        if len(values) > 1:
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            words.append(f"{key} ({' and '.join(_shown(value) for value in values[:3])}{more})")
    return words


def compared_on_other_ground(
    result_dir: Path, table: pd.DataFrame, pair: str, compared: Iterable[tuple[str, str]]
) -> list[str]:
    """A sentence for every group of comparisons whose runs differ in what they stood on; equal differences together."""
    names = table[table["pair"] == pair].drop_duplicates("run").groupby("arm")["run"].apply(list).to_dict()
    read = {run: foundation_of(_record(result_dir, run)) for runs in names.values() for run in runs}
    found: dict[str, list[str]] = {}
    for arm, base in compared:
        if arm in names and base in names:
            words = differing([read[run] for run in (*names[arm], *names[base])])
            if words:
                found.setdefault("; ".join(words), []).append(f"{arm} with {base}")
    return [f"compared although their runs differ in {words}: {listed(pairs)}." for words, pairs in found.items()]


@dataclass(frozen=True)
class Ground:
    """What is to be said of the runs of a pair; each a list of plain sentences."""

    pair: str
    unknown: str
    left_out: tuple[str, ...]
    copies: tuple[str, ...]
    changed: tuple[str, ...]
    overrides: tuple[str, ...]


def ground(result_dir: Path, table: pd.DataFrame, pair: str) -> Ground:
    """From the run.json of every run of a pair."""
    rows = table[table["pair"] == pair].drop_duplicates("run").sort_values(["arm", "seed"])
    records = {run: _record(result_dir, run) for run in rows["run"]}
    arm_of = dict(zip(rows["run"], rows["arm"]))
    without = [run for run, record in records.items() if not foundation_of(record).whole]
    return Ground(
        pair,
        _unknown(pair, without, len(records)),
        tuple(_grouped({run: _left_out(record) for run, record in records.items()})),
        tuple(_grouped({run: _copies(record) for run, record in records.items()})),
        tuple(text for run, record in records.items() for text in _changed(run, record)),
        tuple(_grouped({run: _overrides(record) for run, record in records.items()}, arm_of)),
    )


def _unknown(pair: str, without: Sequence[str], runs: int) -> str:
    """That runs from before there was a record have none; empty if all have one."""
    if not without:
        return ""
    which = f"No run on {pair} has" if len(without) == runs else f"{len(without)} of {runs} runs on {pair} have no"
    record = "a record" if len(without) == runs else "record"
    names = "" if len(without) == runs else f" ({listed(without)})"
    return (
        f"{which} {record} of the {_UNKNOWN} it stood on{names}: whether compared runs share these is unknown, but for "
        "commits, versions and processors."
    )


def _grouped(texts: Mapping[str, str], arm_of: Mapping[str, str] | None = None) -> list[str]:
    """Each text once, with the runs (or arms) that it holds for; nothing for runs without one."""
    holders: dict[str, list[str]] = {}
    for run, text in texts.items():
        if text:
            holders.setdefault(text, []).append(arm_of[run] if arm_of else run)
    everywhere = len(holders) == 1 and len(next(iter(holders.values()))) == len(texts)
    return [
        f"{text}: {'all runs' if everywhere else listed(dict.fromkeys(names))}" for text, names in sorted(holders.items())
    ]


def _left_out(record: Mapping[str, Any]) -> str:
    """"train 12 of 7,473", splits without any left out."""
    kept = _part(record, "questions", dict)
    words = []
    for split, count in _part(record, "left_out", dict).items():
        if isinstance(count, int) and count:
            of = f" of {count + kept[split]:,}" if isinstance(kept.get(split), int) else ""
            words.append(f"{split} {count:,}{of}")
    return ", ".join(words)


def _copies(record: Mapping[str, Any]) -> str:
    found = _part(record, "copies", dict)
    counts = {name: one.get("questions", "?") if isinstance(one, dict) else one for name, one in found.items()}
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _changed(run: str, record: Mapping[str, Any]) -> Iterable[str]:
    """A resume that went on although something had changed (`run.resume_changed=true`)."""
    for one in _part(record, "changed", list):
        entries = one.get("entries") if isinstance(one, dict) else None
        if isinstance(entries, dict):
            words = [f"{key} (was {_shown(_text(was))}, is {_shown(_text(now))})" for key, (was, now) in entries.items()]
            yield f"{run}: resumed at step {one.get('from_step', '?')} on something else: {', '.join(words)}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _overrides(record: Mapping[str, Any]) -> str:
    """What was typed beside the script, seeds aside."""
    return " ".join(str(text) for text in _part(record, "overrides", list) if not str(text).startswith("seed="))
