"""Dynamic sampling (DAPO, Yu et al. 2025, arXiv 2503.14476, section 3.2): `algorithm.filter_groups`.

A group is all responses of one query in one step, extra ones included. A group whose metric is the same number throughout
is thrown away, and as many further queries are drawn as are missing, until the batch holds data.train_batch_size groups
that vary. Queries come in the order of the data loader and every response is seeded by step, query and rollout number, so
one seed gives the same run twice; what a step has drawn is in the data position that a checkpoint holds. A query is drawn at
most once a step.

Where verl 0.9.1 differs: its own sampler (verl/trainer/ppo/v1/replay_buffer.py) draws 2 k queries for k that were thrown
away, while others are still being answered, discards the surplus, and has no limit. Its older trainer draws whole batches
and raises once max_num_gen_batches have been drawn. Here the limit counts queries in units of a batch:

* max_num_gen_batches = m > 0: a step draws at most m * train_batch_size queries; 0: every query of the data set, once.
* At the limit the batch is filled up with the first of the constant groups (`train/filter_filled` counts them), so that a
  batch has its size, whatever was drawn: a run that has cost hours does not end because one step was unlucky.
* If not one group of the whole data set varies, there is nothing to learn from, and the run stops with that reason.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import plain
from Verl.errors import RunStopped
from Verl.trainer.ppo.rollouts import Rollouts, split_sessions

PARTITION = "train"


class DynamicSampler:
    """In the place of the trainer's replay buffer: the same `sample`, which refills what it throws away."""

    def __init__(
        self,
        buffer: Any,
        config: DictConfig,
        refill: Callable[[int], Any],
        read: Callable[[Rollouts], Rollouts],
        questions: int,
    ):
        """
        Args:
            buffer: verl's or ours; evaluation is left to it.
            refill: draws that many further queries and their responses.
            read: what is done to responses once they are fetched (the overlong penalty).
            questions: different ones in the training data.
        """
        self._buffer, self._refill, self._read, self._questions = buffer, refill, read, questions
        self._metric = config.algorithm.filter_groups.metric
        self._batches = config.algorithm.filter_groups.max_num_gen_batches
        self._n = config.actor_rollout_ref.rollout.n
        self._drawn: set[tuple[str, int]] = set()
        self.filtered: Rollouts | None = None  # what the last step threw away

    def begin_step(self) -> None:
        self._drawn.clear()
        self.filtered = None

    def is_new(self, batch: TensorDict) -> bool:
        """Whether this step has not drawn the queries of a batch yet; remembers them."""
        keys = set(zip(map(str, plain(batch["data_source"])), map(int, plain(batch["index"])), strict=True))
        new = not keys & self._drawn
        self._drawn |= keys
        return new

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """A batch of groups that vary, in the order in which they were drawn, and metrics."""
        if partition_id != PARTITION:
            return self._buffer.sample(global_steps, partition_id, batch_size)
        limit = self._questions if self._batches <= 0 else min(self._questions, self._batches * batch_size)
        pool, drawn, requested, metrics = _Pool(), 0, batch_size, {}
        while True:
            batch, more = self._buffer.sample(global_steps, partition_id, requested)
            metrics |= more
            self._add(pool, batch)
            drawn += requested
            requested = min(batch_size - len(pool.varying), limit - drawn)
            if requested <= 0:
                break
            self._refill(requested)
        if not pool.varying and drawn >= self._questions:
            raise RunStopped(
                f"step {global_steps}: algorithm.filter_groups.metric={self._metric} is the same for all responses to each "
                f"of the {drawn} training questions, so that no group is left to train on: train without "
                "algorithm.filter_groups, or on other questions"
            )
        return self._chosen(pool, batch_size, drawn, metrics)

    def _add(self, pool: "_Pool", batch: KVBatchMeta) -> None:
        """Reads what was drawn and sorts its groups into those that vary and those that are constant."""
        fetched = Rollouts.fetch(batch)
        read = self._read(fetched)
        # "score" is the reward before the overlong penalty, "reward" the one that trains.
        values = {"score": fetched.rewards, "reward": read.rewards}.get(self._metric) or read.scores[self._metric]
        if any(math.isnan(value) for value in values):
            raise RunStopped(
                f"algorithm.filter_groups.metric={self._metric} is not defined for this data set, which only your own function "
                "scores: choose reward"
            )
        first = len(pool.keys)
        pool.add(read, batch)
        groups: dict[str, list[int]] = defaultdict(list)
        for row, uid in enumerate(read.uids):
            groups[uid].append(row)
        for uid, rows in groups.items():
            constant = len({values[row] for row in rows}) == 1
            (pool.constant if constant else pool.varying)[uid] = [first + row for row in rows]

    def _chosen(self, pool: "_Pool", batch_size: int, drawn: int, metrics: dict) -> tuple[KVBatchMeta, dict]:
        filled = dict(list(pool.constant.items())[: batch_size - len(pool.varying)])
        away = [row for uid, rows in pool.constant.items() if uid not in filled for row in rows]
        kept = [row for _, rows in sorted((pool.varying | filled).items()) for row in rows]
        self.filtered = self._filtered(pool, away)
        metrics |= {
            "train/filtered_groups": (len(pool.constant) - len(filled)) / drawn,
            "train/filter_filled": float(len(filled)),
            "train/drawn_batches": drawn / batch_size,
        }
        batch = KVBatchMeta(
            partition_id=PARTITION,
            keys=[pool.keys[row] for row in kept],
            tags=[pool.tags[row] for row in kept],
            extra_info=dict(pool.extra_info),
        )
        return batch, metrics

    def _filtered(self, pool: "_Pool", rows: list[int]) -> Rollouts | None:
        """What is thrown away, out of the queue and kept for the records."""
        if not rows:
            return None
        away = pool.rollouts.take(rows)
        tq.kv_clear(keys=away.keys, partition_id=PARTITION)
        trained, extra = split_sessions(away, self._n)
        return replace(trained, extra=extra)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._buffer, name)


class _Pool:
    """Everything that a step has drawn so far, and its groups: rows by query."""

    def __init__(self) -> None:
        self.rollouts: Rollouts | None = None
        self.keys: list[str] = []
        self.tags: list[dict] = []
        self.extra_info: dict = {}
        self.varying: dict[str, list[int]] = {}
        self.constant: dict[str, list[int]] = {}

    def add(self, rollouts: Rollouts, batch: KVBatchMeta) -> None:
        self.rollouts = rollouts if self.rollouts is None else self.rollouts.joined_with(rollouts)
        self.keys += batch.keys
        self.tags += batch.tags
        self.extra_info |= batch.extra_info


def different_questions(dataset: Any) -> int:
    """How many questions a training set has, each counted once, as `DynamicSampler` knows them."""
    rows = dataset.dataframe
    indices = [(info or {}).get("index", 0) for info in rows["extra_info"]]
    return len(set(zip(map(str, rows["data_source"]), map(int, indices), strict=True)))
