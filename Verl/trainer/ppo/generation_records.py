"""Evaluation generations for people to read, under verl's names (its own validation, which wrote them, is not used here).

* `trainer.log_val_generations` = k: k generations of each evaluation go to the loggers that take texts (wandb, swanlab, mlflow,
  trackio, clearml, tensorboard), by verl's own ValidationGenerationsLogger. Which ones verl chooses: sorted by prompt,
  shuffled by a fixed seed, the first k (verl 0.9.1, trainer_base.py, `_maybe_log_val_generations`).
* `trainer.validation_data_dir`: all of them as <folder>/<step>.jsonl, in verl's form: input, output, gts, score, step, the
  scores, uid; and here the set that the question is from, since training sample, validation and test set are one file.

Both are over every set that is due at a step, in the order training sample, validation, test. The parquet files in
<run>/evaluations hold the same and are always written.
"""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import rows_of
from Verl.trainer.ppo.rollouts import Rollouts
from Verl.trainer.ppo.served_trainer import ServedTrainer


class GenerationRecords:
    """Collects one evaluation's generations; `write` hands them on."""

    def __init__(self, trainer: ServedTrainer):
        self._trainer = trainer
        self._count = trainer.config.trainer.log_val_generations
        self._folder = trainer.config.trainer.get("validation_data_dir")
        self._columns: dict[str, list] = {}

    def add(self, name: str, dataset: Any, rows: list[int], rollouts: Rollouts, batch: KVBatchMeta) -> None:
        """Takes one set's generations.

        Args:
            rows: the places in `dataset` of the questions, in the order in which they were generated.
            batch: the generations, still in the queue.
        """
        if not self._count and not self._folder:
            return
        decode = self._trainer.tokenizer.decode
        prompts = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["prompts"])["prompts"]
        place = [int(uid.rsplit("-", 1)[1]) for uid in rollouts.uids]
        truths = {one: dataset[rows[one]]["reward_model"].get("ground_truth") for one in set(place)}
        columns = {
            "input": [decode(ids.tolist(), skip_special_tokens=True) for ids in rows_of(prompts)],
            "output": [decode(ids, skip_special_tokens=True) for ids in rollouts.responses],
            "gts": [truths[one] for one in place],
            "score": rollouts.rewards,
            # JSON knows no NaN: a data set of the user's has no flexible score.
            **{score: [None if math.isnan(x) else x for x in values] for score, values in rollouts.scores.items()},
            "set": [name] * len(rollouts),
            "index": rollouts.indices,
            "uid": rollouts.keys,
        }
        for column, values in columns.items():
            self._columns.setdefault(column, []).extend(values)

    def write(self, step: int) -> None:
        """Logs and writes what was added, if anything."""
        if not self._columns:
            return
        columns = dict(self._columns)
        texts = [columns.pop(column) for column in ("input", "output", "gts", "score")]
        if self._count:
            self._trainer._maybe_log_val_generations(inputs=texts[0], outputs=texts[1], scores=texts[3])
        if self._folder:
            self._dump(*texts, columns, step)

    def _dump(self, inputs: list, outputs: list, truths: list, scores: list, more: dict[str, list], step: int) -> None:
        """By verl's writer, into a folder beside the real one, so that the file is there whole or not at all."""
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial") as partial:
            self._trainer._write_generations(inputs, outputs, truths, scores, more, partial, step)
            os.replace(Path(partial) / f"{step}.jsonl", folder / f"{step}.jsonl")
