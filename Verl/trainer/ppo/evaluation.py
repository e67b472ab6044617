"""Evaluation during a run: Pass@1 on a sample of the training questions, on validation, on the test set and benchmarks.

One sample per question at the temperature of `val_kwargs` (the published metric: one sample at temperature 1.0), or
`val_kwargs.n` of them. The random numbers depend on (seed, step, question, sample) alone, so that two arms with one
seed are evaluated with the same luck. At both ends of a run the test set gets `evaluation.final_samples` answers per
question: those above and further ones, in a batch of their own, so that the metrics above keep their values to the last
digit whatever the number. verl's own validation is not used: its best@N is not pass@k, and its bootstrap
reseeds numpy (verl 0.9.1, verl/trainer/ppo/metric_utils.py).
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig
from verl.trainer.ppo.utils import create_rl_dataset
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from Verl.reward.parts import means as part_means
from Verl.seeds import derive
from Verl.statistics.questions import pass_at_k
from Verl.trainer.benchmarks import benchmarks, files_of
from Verl.trainer.ppo.conditions import DRAWS_FINAL_SAMPLES
from Verl.trainer.ppo.generation_records import GenerationRecords
from Verl.trainer.ppo.rollouts import Rollouts
from Verl.trainer.ppo.served_trainer import ServedTrainer

PARTITION = "val"


@dataclass(frozen=True)
class EvaluationSet:
    """Questions that are evaluated together, every `frequency` steps and at both ends."""

    name: str
    dataset: object
    rows: list[int]
    frequency: int
    final_samples: int = 0  # answers per question at both ends; 0: as at any other evaluation

    def complete_in(self, record: Container[str]) -> bool:
        """Whether a line of the log has all that the last evaluation of this set brings."""
        return f"eval/{self.name}/{f'avg@{self.final_samples}' if self.final_samples else 'pass@1'}" in record


class Evaluator:
    """Draws, scores and counts the evaluation responses of one run."""

    def __init__(self, trainer: ServedTrainer):
        self.trainer, self.config = trainer, trainer.config
        settings, config = self.config.evaluation, self.config
        test = self._read(config.data.test_files)
        others = {name: self._read(files_of(config, name)) for name in benchmarks(config)}
        train, validation = trainer.train_dataset, trainer.val_dataset
        self.sets = [
            # The same sample for every arm and seed: it is part of the measure, not of the run.
            EvaluationSet("train", train, _sample(train, settings.train_questions), settings.val_freq),
            EvaluationSet("validation", validation, _first(validation, settings.val_questions), settings.val_freq),
            EvaluationSet("test", test, _first(test, settings.test_questions), config.trainer.test_freq, final_samples(config)),
            *(EvaluationSet(name, one, _first(one, settings.test_questions), config.trainer.test_freq)
              for name, one in others.items()),
        ]
        self._record_left_out({"train": train, "validation": validation, "test": test, **others})
        # verl asks for evaluation every trainer.test_freq steps: give it the steps on which any set is due, and decide
        # here which. The run's own config, which is logged and compared, keeps what the user asked for.
        self.test_freq = config.trainer.test_freq
        wanted = [s.frequency for s in self.sets if s.rows and s.frequency > 0]
        config.trainer.test_freq = math.gcd(*wanted) if wanted else -1
        config.trainer.val_before_train &= bool(wanted)  # verl can't do with an evaluation of nothing
        self.skip_next = False  # a resumed run was already evaluated at the step that it starts from

    def _read(self, files: Any) -> object:
        trainer = self.trainer
        return create_rl_dataset(files, self.config.data, trainer.tokenizer, trainer.processor, is_train=False)

    def _record_left_out(self, datasets: dict[str, object]) -> None:
        """How many questions of each split have too long a prompt, and how many are left, into run.json."""
        left_out = {split: int(getattr(dataset, "left_out", 0)) for split, dataset in datasets.items()}
        questions = {split: len(dataset) for split, dataset in datasets.items()}
        self.trainer.run_log.describe(left_out=left_out, questions=questions)
        for split, count in left_out.items():
            if count:
                longest = self.config.data.max_prompt_length
                self.trainer.run_log.console.say(
                    f"note: {count} of {count + questions[split]} {split} questions are left out: their prompts have more than "
                    f"data.max_prompt_length={longest} tokens"
                )

    def run(self, step: int, last: bool, besides: Container[str] = ()) -> dict[str, float]:
        """Metrics `eval/<set>/...` of the sets that are due at this step, besides those named."""
        if self.skip_next:
            self.skip_next = False
            return {"eval/resumed": 1.0}
        ends = step == 0 or last
        records = GenerationRecords(self.trainer)
        due = [s for s in self.sets if s.rows and s.frequency > 0 and (ends or step % s.frequency == 0)]
        due = [s for s in due if s.name not in besides]
        metrics: dict[str, float] = {}
        val_kwargs = self.config.actor_rollout_ref.rollout.val_kwargs
        for part in due:
            rollouts = self._generate(part, step, records)
            self.trainer.failed_rewards.check(rollouts, f"evaluation on {part.name} at step {step}")
            self.trainer.run_log.evaluation(part.name, step, rollouts)
            metrics.update(set_metrics(part.name, rollouts, val_kwargs))
            if ends and part.final_samples:
                more = self._generate(part, step, None, first=val_kwargs.n, count=part.final_samples - val_kwargs.n)
                self.trainer.failed_rewards.check(more, f"final samples on {part.name} at step {step}")
                self.trainer.run_log.evaluation(part.name, step, more)
                metrics.update(final_metrics(part.name, rollouts.joined_with(more)))
        records.write(step)
        return metrics

    def _generate(
        self, part: EvaluationSet, step: int, records: GenerationRecords | None, first: int = 0, count: int | None = None
    ) -> Rollouts:
        """Draws and scores `count` answers a question (None: `val_kwargs.n`), of which `first` is the first's number."""
        batch = collate_fn([part.dataset[row] for row in part.rows])
        uids = [f"{step:08d}-{part.name}-{place:06d}" for place in range(len(part.rows))]
        batch["uid"] = np.array(uids, dtype=object)
        if count is not None:
            batch["__rollout_n__"] = np.array([count] * len(uids), dtype=object)
            batch["first_session"] = np.array([first] * len(uids), dtype=object)
        batch = tu.get_tensordict(batch)
        tu.assign_non_tensor_data(batch, "global_steps", step)
        tu.assign_non_tensor_data(batch, "validate", True)
        tags = [{"is_prompt": True, "status": "pending", "global_steps": step} for _ in part.rows]
        tq.kv_batch_put(keys=list(batch["uid"]), partition_id=PARTITION, tags=tags)
        self.trainer.agent_loop_manager.generate_sequences(batch)
        answered, _ = self.trainer.replay_buffer.sample(step, PARTITION, batch_size=len(part.rows))
        rollouts = Rollouts.fetch(answered)
        rollouts.sessions = [first + session for session in rollouts.sessions]
        if records is not None:
            records.add(part.name, part.dataset, part.rows, rollouts, answered)
        tq.kv_clear(keys=answered.keys, partition_id=PARTITION)
        return rollouts


def final_samples(config: DictConfig) -> int:
    """Answers per test question at both ends of a run; 0 where no further ones are drawn."""
    count = config.evaluation.final_samples
    further = DRAWS_FINAL_SAMPLES(config) and count > config.actor_rollout_ref.rollout.val_kwargs.n
    return count if further else 0


def set_metrics(name: str, rollouts: Rollouts, val_kwargs: Any) -> dict[str, float]:
    """`eval/<name>/...` over all questions; with several data sources also `eval/<name>/<source>/...` over those of each."""
    metrics = {}
    for of_source, part in _by_source(name, rollouts).items():
        metrics.update(_metrics(of_source, part, val_kwargs))
    return metrics


def final_metrics(name: str, rollouts: Rollouts) -> dict[str, float]:
    """`eval/<name>/avg@<k>` and, of 0/1 scores, `pass@<k>` over k answers per question; by data source as above.

    `avg@k` is the mean over questions and answers: it estimates what `pass@1` does, with the luck of the answers divided
    by k. `avg@<k>/failures`: answers among them that could not be scored.
    """
    metrics = {}
    for of_source, part in _by_source(name, rollouts).items():
        scores = _scores_by_query(part)
        count = max(len(values) for values in scores)
        metrics[f"eval/{of_source}/avg@{count}"] = float(np.mean([np.mean(values) for values in scores]))
        metrics[f"eval/{of_source}/avg@{count}/failures"] = _failures(part)
        metrics.update(_pass_at_all(of_source, scores))
    return metrics


def _by_source(name: str, rollouts: Rollouts) -> dict[str, Rollouts]:
    """All answers under the set's name and, with several data sources, those of each under `<name>/<source>`."""
    found, words = {name: rollouts}, source_words(rollouts.data_sources)
    if len(words) > 1:
        for source, word in words.items():
            rows = [row for row, one in enumerate(rollouts.data_sources) if one == source]
            found[f"{name}/{word}"] = rollouts.take(rows)
    return found


def source_words(data_sources: Iterable[str]) -> dict[str, str]:
    """Each data source as one word of a metric's name: `openai/gsm8k` is `openai-gsm8k`.

    A word that more than slashes were replaced in, or that two sources would share (`a/b` and `a-b`), ends in a short hash.
    """
    plain = {source: re.sub(r"[^A-Za-z0-9._-]+", "-", source) for source in sorted(set(data_sources))}
    counts = Counter(plain.values())
    return {
        source: word
        if counts[word] == 1 and word == re.sub(r"/+", "-", source)
        else f"{word}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"
        for source, word in plain.items()
    }


def _metrics(name: str, rollouts: Rollouts, val_kwargs: Any) -> dict[str, float]:
    """Scores of one set, and beside them how they were drawn: without that a Pass@1 can't be compared with another."""
    scores = _scores_by_query(rollouts)
    samples = max(len(values) for values in scores)
    metrics = {
        f"eval/{name}/pass@1": float(np.mean([np.mean(values) for values in scores])),
        **{f"eval/{name}/{score}": mean for score, mean in rollouts.other_scores().items()},
        **{f"eval/{name}/{part}": mean for part, mean in part_means(rollouts.reward_parts).items()},
        f"eval/{name}/questions": float(len(scores)),
        f"eval/{name}/samples": float(samples),
        f"eval/{name}/temperature": float(val_kwargs.temperature),
        f"eval/{name}/top_p": float(val_kwargs.top_p),
        f"eval/{name}/top_k": float(val_kwargs.top_k),
        f"eval/{name}/response_length_mean": float(np.mean(rollouts.response_lengths)),
        f"eval/{name}/failures": _failures(rollouts),
    }
    return metrics | _pass_at_all(name, scores)


def _scores_by_query(rollouts: Rollouts) -> list[list[float]]:
    by_query: dict[str, list[float]] = defaultdict(list)
    for uid, strict in zip(rollouts.uids, rollouts.scores["strict"], strict=True):
        by_query[uid].append(strict)
    return list(by_query.values())


def _failures(rollouts: Rollouts) -> float:
    return float(sum(rollouts.scores["failure"]) + sum(rollouts.scores["timeout"]))


def _pass_at_all(name: str, scores: list[list[float]]) -> dict[str, float]:
    """pass@k of all k answers, k above 1. A user's data set has its user's reward here, of any size: right or wrong is then
    not defined, nor is pass@k."""
    samples = max(len(values) for values in scores)
    if samples == 1 or not all(value in (0.0, 1.0) for values in scores for value in values):
        return {}
    passed = [pass_at_k(len(values), int(sum(values)), len(values)) for values in scores]
    return {f"eval/{name}/pass@{samples}": float(np.mean(passed))}


def _sample(dataset, count: int) -> list[int]:
    if count < 0 or count >= len(dataset):
        return list(range(len(dataset)))
    return sorted(np.random.default_rng(derive(0, "train sample")).permutation(len(dataset))[:count].tolist())


def _first(dataset, count: int) -> list[int]:
    return list(range(len(dataset) if count < 0 else min(count, len(dataset))))
