"""Simulated runs with known differences, written as the trainer writes them; for tests only, never for results."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from Verl.analysis.runs.run_file import arm_numbers


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
    full: bool = False,
    rng: np.random.Generator | None = None,
    truth: Callable[[str, float], float] | None = None,
    **identity,
) -> str:
    """One run whose true test Pass@1 rises from 0.5 to 0.5 + gain (+ seed noise), or is ``truth`` of split and step (+ seed
    noise of its gain over 0.45); returns its name.

    The logged values are sampled from ``questions`` 0/1 answers, and the parquet files (last step) hold those answers.
    ``full``: with the evaluation before training, the answers' texts, health metrics, config.yaml, command and versions.
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
            chance = 0.5 + head_start + difficulty + rise
            if truth is not None:
                planted = truth(split, step)
                chance = np.full(questions, planted + own * (planted - 0.45) / 0.4)
            scores = rng.random(questions) < np.clip(chance, 0, 1)
            row[f"eval/{split}/pass@1"] = float(scores.mean())
            stored = [max(steps)] * (parquet or full) + [min(steps)] * full
            if split == "test" and step in stored:
                write_evaluation(folder / name, step, scores, texts=full)
        row["ledger/total_queries"] = step * numbers["queries"]
        row["ledger/total_responses_generated"] = step * numbers["generated"]
        row["ledger/total_tokens_generated"] = step * numbers["generated"] * 16
        row["ledger/total_gradient_samples"] = step * numbers["trained"]
        row["ledger/total_hours"] = step / 3600
        lines.append(json.dumps(row | (_health(step, scores) if full else {})))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    record = {
        "run": name,
        "arm": arm,
        "model": model_data[0],
        "data": model_data[1],
        "pair": pair,
        "seed": seed,
        "status": "finished",
        "config_hash": f"hash-{arm}",
    } | identity
    if full:
        record |= _provenance(arm, pair, seed)
        (folder / name / "config.yaml").write_text(yaml.safe_dump(_config(arm, seed, numbers)))
    (folder / name / "run.json").write_text(json.dumps(record))
    return name


def _health(step: int, scores: np.ndarray) -> dict:
    own = {"eval/test/flexible": float(scores.mean()), "eval/test/format": 0.99, "eval/test/failures": 0.0}
    if step:
        own |= {"training/rollout_probs_diff_mean": 2.4e-7, "training/rollout_probs_diff_max": 7.2e-7}
        own |= {"actor/ppo_kl": 0.0, "actor/kl_loss": 1e-4 * step, "reward/failures": 0.0, "reward/timeouts": 0.0}
        own |= {"train/response_length_mean": 12.0, "timing_s/step": 1.5}
    return own


def _config(arm: str, seed: int, numbers: Mapping[str, int]) -> dict:
    n = numbers["trained"] // numbers["queries"]
    config = {"seed": seed, "run": {"name": f"{arm} {seed}"}, "data": {"train_batch_size": numbers["queries"]}}
    config["actor_rollout_ref"] = {
        "rollout": {"n": n},
        "actor": {"ppo_mini_batch_size": numbers["queries"], "rollout_n": n},
    }
    return config | {"trainer": {"total_training_steps": 100}, "algorithm": {"adv_estimator": arm.split("_")[0]}}


def _provenance(arm: str, pair: str, seed: int) -> dict:
    host = {"processor": "a processor", "cpus": 2, "system": "Linux"}
    command = f"bash Running-Bash/run_{arm}_{pair}.sh seed={seed}"
    return {"command": command, "commit": "abc1234", "versions": {"verl": "0.9.1", "torch": "2.13.0"}, "host": host}


def write_evaluation(run_folder: Path, step: int, scores: Sequence[bool], texts: bool = False) -> None:
    """The per-question file of one evaluation, test split only, one sample a question."""
    folder = run_folder / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    strict, n = np.asarray(scores, dtype=float), len(scores)
    columns = {"step": np.full(n, step), "split": ["test"] * n, "index": np.arange(n), "sample": np.zeros(n, int)}
    columns["data_source"] = ["arith"] * n
    columns |= {"strict": strict, "flexible": strict, "format": np.ones(n), "response_length": np.full(n, 12)}
    if texts:
        columns |= {"text": ["7+5=12;#12" if score else "#13" for score in strict]}
        columns |= {"reward": strict, "log_prob": np.full(n, -1.5), "failure": [False] * n, "timeout": [False] * n}
    pq.write_table(pa.table(columns), folder / f"step_{step:06d}.parquet")


def write_study(folder: Path, gains: Mapping[str, float], seeds: Sequence[int], **options) -> None:
    """Every arm with every seed, all from one generator."""
    rng = np.random.default_rng(options.pop("random_seed", 0))
    for arm, gain in gains.items():
        for seed in seeds:
            write_run(folder, arm, seed, gain, rng=rng, **options)
