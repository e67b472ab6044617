"""Simulated runs with known differences, written as the trainer writes them; for tests only, never for results."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from Verl.analysis.run_files import arm_numbers


def write_run(
    folder: Path,
    arm: str,
    seed: int,
    gain: float = 0.2,
    pair: str = "tiny_arith",
    steps: Sequence[int] = tuple(range(0, 101, 10)),
    questions: int = 256,
    seed_noise: float = 0.01,
    parquet: bool = False,
    rng: np.random.Generator | None = None,
    **identity,
) -> str:
    """One run whose true test Pass@1 rises from 0.5 to 0.5 + gain (+ seed noise); returns its name.

    The logged values are sampled from ``questions`` 0/1 answers, and the parquet files (last step) hold those answers.
    """
    rng = rng or np.random.default_rng(zlib.crc32(f"{arm} {seed} {pair}".encode()))
    name, model_data = f"{arm}_{pair}_seed{seed}", pair.split("_")
    numbers = arm_numbers(arm) or {"queries": 32, "trained": 256, "generated": 256}
    own = rng.normal(0.0, seed_noise)
    difficulty = np.clip(np.random.default_rng(99).normal(0.0, 0.2, questions), -0.25, 0.25)  # shared by all runs
    lines = []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for step in steps:
        row = {"step": step, "train/reward_mean": 0.5, "actor/grad_norm": 1.0}
        for split, head_start in (("train", 0.02), ("validation", 0.0), ("test", 0.0)):
            rise = (gain + own) * (1 - np.exp(-3 * step / max(steps))) / (1 - np.exp(-3)) if step else 0.0
            scores = rng.random(questions) < np.clip(0.5 + head_start + difficulty + rise, 0, 1)
            row[f"eval/{split}/pass@1"] = float(scores.mean())
            if split == "test" and parquet and step == max(steps):
                write_evaluation(folder / name, step, scores)
        row["ledger/total_queries"] = step * numbers["queries"]
        row["ledger/total_responses_generated"] = step * numbers["generated"]
        row["ledger/total_tokens_generated"] = step * numbers["generated"] * 16
        row["ledger/total_gradient_samples"] = step * numbers["trained"]
        row["ledger/total_hours"] = step / 3600
        lines.append(json.dumps(row))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    told = {
        "run": name,
        "arm": arm,
        "model": model_data[0],
        "data": model_data[1],
        "pair": pair,
        "seed": seed,
        "status": "finished",
        "config_hash": f"hash-{arm}",
    } | identity
    (folder / name / "run.json").write_text(json.dumps(told))
    return name


def write_evaluation(run_folder: Path, step: int, scores: Sequence[bool]) -> None:
    """The per-question file of one evaluation, test split only, one sample a question."""
    folder = run_folder / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    strict, n = np.asarray(scores, dtype=float), len(scores)
    columns = {"step": np.full(n, step), "split": ["test"] * n, "index": np.arange(n), "sample": np.zeros(n, int)}
    columns |= {"strict": strict, "flexible": strict, "format": np.ones(n), "response_length": np.full(n, 12)}
    pq.write_table(pa.table(columns), folder / f"step_{step:06d}.parquet")


def write_study(folder: Path, gains: Mapping[str, float], seeds: Sequence[int], **options) -> None:
    """Every arm with every seed, all from one generator."""
    rng = np.random.default_rng(options.pop("random_seed", 0))
    for arm, gain in gains.items():
        for seed in seeds:
            write_run(folder, arm, seed, gain, rng=rng, **options)
