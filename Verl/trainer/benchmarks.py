"""Test files beside the test set: `data.benchmarks.<name>=FILE`, each evaluated, logged and drawn under its own name.

Verdicts stay on the data set's own test set; a benchmark is looked at, not decided by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError

KEY = "data.benchmarks"
SPLITS = {"train": "data.train_files", "validation": "data.val_files", "test": "data.test_files"}
_PASS_AT_1 = re.compile(r"eval/([^/]+)/pass@1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def benchmarks(config: DictConfig) -> list[str]:
    """The names of a run's benchmarks, in the order of their settings."""
    found = OmegaConf.select(config, KEY, default=None)
    return [str(name) for name in found] if OmegaConf.is_dict(found) else []


def splits_of(config: DictConfig) -> dict[str, str]:
    """Every set of questions of a run -> the key of its files: train, validation, test, and the benchmarks."""
    return {**SPLITS, **{name: f"{KEY}.{name}" for name in benchmarks(config)}}


def files_of(config: DictConfig, split: str) -> list[str]:
    """The files of a split or a benchmark, as the config names them."""
    parent, _, last = splits_of(config)[split].partition(".")
    node = config[parent]
    if split not in SPLITS:  # a benchmark's name may hold points
        node, last = node.benchmarks, split
    value = node[last]
    return [str(value)] if isinstance(value, str) else [str(one) for one in value or []]


def evaluated_sets(metrics: Iterable[str]) -> list[str]:
    """The sets that have an `eval/<set>/pass@1`: train, validation and test first, then benchmarks by name."""
    found = [match[1] for metric in metrics if (match := _PASS_AT_1.fullmatch(metric))]
    return [*(name for name in SPLITS if name in found), *sorted(set(found) - set(SPLITS))]


def check_benchmarks(config: DictConfig) -> None:
    """Each has a name that a metric can have, and files; and they are evaluated at all.

    Raises:
        UserError: one sentence with key and value.
    """
    given, found = config.data.benchmarks, benchmarks(config)
    if given is not None and not OmegaConf.is_dict(given):
        raise UserError(f"{KEY}={given} is no group of files: name each, {KEY}.<name>=<parquet file>")
    for name in found:
        value = config.data.benchmarks[name]
        if not _NAME.fullmatch(name) or name in SPLITS:
            raise UserError(
                f"{KEY}.{name}: the name can't be that of a metric eval/<name>/pass@1: use up to 40 letters, digits, points, "
                f"dashes and underscores, and not {', '.join(SPLITS)}"
            )
        one_file = isinstance(value, str) and value
        if not one_file and not (OmegaConf.is_list(value) and len(value) and all(isinstance(one, str) for one in value)):
            raise UserError(f"{KEY}.{name}={value} must be a parquet file, or a list of them")
    if found and (config.trainer.test_freq <= 0 or config.evaluation.test_questions == 0):
        key = "trainer.test_freq" if config.trainer.test_freq <= 0 else "evaluation.test_questions"
        value = config.trainer.test_freq if config.trainer.test_freq <= 0 else 0
        raise UserError(
            f"{KEY}.{found[0]} changes nothing: benchmarks are evaluated with the test set, and {key}={value} evaluates none; "
            f"set {key}, or leave the benchmark out"
        )
