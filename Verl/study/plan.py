"""What runs cost before they are started: steps, queries, tokens, memory and hours, by arithmetic.

For B queries a step, N trained and M extra rollouts, prompts and responses as long as they may be (upper bounds), P
parameters, C sequences at a time (what rollout.max_num_seqs and the cache allow), on a GPU of bandwidth W, peak F:

    responses a step  B (N + M)                steps of an epoch  floor(training questions / B)
    generate, s       r [ (2 P + C k (p + r/2)) / W + 2 P C / F ] ceil(B (N + M) / C) + 2 P p B (N + M) / F
                      r decoding steps per wave, each reads the weights (2 P bytes) and the cache (k bytes a token)
    train, s          12 P (p + r) B N / F     forward 2 P, backward 4 P, recomputed forward 2 P (gradient
                      checkpointing), log-probs 2 P, reference 2 P operations a token
    evaluate, s       as generate, for the questions of each evaluation
    several GPUs      each draws and trains its share; what they send each other is not reckoned
    hours             steps (generate + train) + evaluate, divided by 3600 x efficiency

W and F are the data sheet's; `efficiency`, the share of them that a run reaches, is an assumption until a pair has
runs: then hours come from their tokens per second (`measured`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from Verl.trainer.memory import ModelSize, gpus
from Verl.trainer.ppo.conditions import DRAWS_FINAL_SAMPLES
from Verl.trainer.run_checks import check_epochs, steps_by_epochs


@dataclass(frozen=True)
class Workload:
    """How much one run computes. `evaluated`: responses drawn for all its evaluations; `further`: those among them that
    `evaluation.final_samples` adds at both ends."""

    queries: int
    rollouts: int
    extra: int
    prompt: int
    response: int
    steps: int
    steps_are_bound: bool  # nothing but the number of epochs ends the run
    evaluated: int
    further: int = 0
    gpus: int = 1

    @property
    def responses(self) -> int:
        """Drawn a step."""
        return self.queries * (self.rollouts + self.extra)

    @property
    def tokens(self) -> int:
        """Generated in all steps, at most; evaluation apart."""
        return self.steps * self.responses * self.response


def workload(config: DictConfig, questions: Mapping[str, int], steps: int | None = None) -> Workload:
    """The work of a composed config on a data set with `questions` per split.

    Raises:
        UserError: for more steps than the run's epochs have.
    """
    data = config.data
    bound = steps_by_epochs(config, questions["train"])
    check_epochs(config, questions["train"], steps)
    total = steps or config.trainer.total_training_steps
    return Workload(
        queries=data.train_batch_size,
        rollouts=config.actor_rollout_ref.rollout.n,
        extra=data.get("extra_sampling_size") or 0,
        prompt=data.max_prompt_length,
        response=data.max_response_length,
        steps=total or bound,
        steps_are_bound=total is None,
        evaluated=_evaluated(config, questions, total or bound) + _further(config, questions),
        further=_further(config, questions),
        gpus=gpus(config),
    )


def samples_at_the_ends(config: DictConfig) -> int:
    """Answers per test question before training and at the last step."""
    drawn = config.actor_rollout_ref.rollout.val_kwargs.n
    return max(drawn, config.evaluation.final_samples) if DRAWS_FINAL_SAMPLES(config) else drawn


def _further(config: DictConfig, questions: Mapping[str, int]) -> int:
    """Responses that `evaluation.final_samples` adds."""
    further = samples_at_the_ends(config) - config.actor_rollout_ref.rollout.val_kwargs.n
    requested = config.evaluation.test_questions
    size = questions["test"] if requested < 0 else min(requested, questions["test"])
    return (1 + bool(config.trainer.val_before_train)) * size * further


def _evaluated(config: DictConfig, questions: Mapping[str, int], steps: int) -> int:
    """Responses of all evaluations: before training, every `frequency` steps, and at the end."""
    chosen, total = config.evaluation, 0
    for split, requested, frequency in (
        ("train", chosen.train_questions, chosen.val_freq),
        ("validation", chosen.val_questions, chosen.val_freq),
        ("test", chosen.test_questions, config.trainer.test_freq),
    ):
        if frequency <= 0:
            continue
        times = steps // frequency + (steps % frequency > 0) + bool(config.trainer.val_before_train)
        size = questions[split] if requested < 0 else min(requested, questions[split])
        total += times * size * config.actor_rollout_ref.rollout.val_kwargs.n
    return total


@dataclass(frozen=True)
class Hours:
    """Hours of one run by part, and where the throughput comes from."""

    generate: float
    train: float
    evaluate: float
    source: str

    @property
    def total(self) -> float:
        return self.generate + self.train + self.evaluate


def _generate_seconds(size: ModelSize, work: Workload, count: int, at_once: int, machine: Mapping[str, Any]) -> float:
    bandwidth, peak, parameters = machine["bandwidth_gb_s"] * 1e9, machine["bf16_tflop_s"] * 1e12, size.parameters
    count = math.ceil(count / work.gpus)
    together = min(at_once, count)
    read = 2 * parameters + together * size.cache_bytes * (work.prompt + work.response / 2)
    decode = work.response * (read / bandwidth + 2 * parameters * together / peak)
    return decode * math.ceil(count / together) + 2 * parameters * work.prompt * count / peak


def reckoned_hours(size: ModelSize, work: Workload, at_once: int, machine: Mapping[str, Any]) -> Hours:
    """From the machine's data sheet and the stated efficiency (module docstring)."""
    scale = 3600 * machine["efficiency"]
    trained = work.queries * work.rollouts * (work.prompt + work.response) / work.gpus
    train = 12 * size.parameters * trained / (machine["bf16_tflop_s"] * 1e12)
    return Hours(
        generate=work.steps * _generate_seconds(size, work, work.responses, at_once, machine) / scale,
        train=work.steps * train / scale,
        evaluate=_generate_seconds(size, work, work.evaluated, at_once, machine) / scale if work.evaluated else 0.0,
        source=f"data sheet x {machine['efficiency']:g}",
    )


def measured_hours(work: Workload, seconds_per_response: float, seconds_per_evaluated: float | None = None) -> Hours:
    """From runs of the pair: a step's seconds go with its responses; an evaluation's with its own, which are drawn many at
    a time (without a measurement of that: at the steps' pace)."""
    evaluated = seconds_per_response if seconds_per_evaluated is None else seconds_per_evaluated
    return Hours(
        generate=work.steps * work.responses * seconds_per_response / 3600,
        train=0.0,
        evaluate=work.evaluated * evaluated / 3600,
        source="measured",
    )
