"""What one step's rollouts brought back, read once from the transfer queue and kept in plain lists."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import nested, plain, rows_of
from Verl.adapter.replay_buffer import rollout_order
from Verl.reward.parts import KEY as PARTS
from Verl.reward.parts import Part, gathered
from Verl.reward.parts import joined as join_parts
from Verl.reward.score import has_lenient_rule
from Verl.trainer.ppo.reward_history import QueryKey

PADDING = "padding-"  # begins the uid of a row that verl has added
SCORES = ("strict", "lenient", "flexible", "format", "failure", "timeout")
_FIELDS = ("index", "data_source", "rm_scores", "extra_fields", "responses", "rollout_log_probs")


@dataclass
class Rollouts:
    """One entry per response, in the order of the batch: by query, then rollout number."""

    keys: list[str]
    uids: list[str]  # the query's place in this run: "<step>-<place>"
    sessions: list[int]  # rollout number within the query
    indices: list[int]  # the query's index in its data set
    data_sources: list[str]
    rewards: list[float]  # what training uses
    scores: dict[str, list[float]]  # SCORES: the four scores, and whether scoring failed or timed out
    prompt_lengths: list[int]
    response_lengths: list[int]
    responses: list[list[int]]
    log_probs: list[list[float]]
    truncated: list[bool] = field(default_factory=list)  # cut off by the length limit (loss_mask.py)
    penalties: list[float] = field(default_factory=list)  # part of the reward: the overlong penalty (overlong.py)
    extra: "Rollouts | None" = field(default=None)  # onerpo's extra responses of the same queries
    filtered: "Rollouts | None" = field(default=None)  # responses of other queries, thrown away (dynamic_sampling.py)
    reward_parts: dict[str, list[Part | None]] = field(default_factory=dict)  # of a user's reward (Verl/reward/parts.py)
    first_error: str | None = None  # traceback of the first reward that could not be computed

    @classmethod
    def fetch(cls, batch: KVBatchMeta) -> "Rollouts":
        """Reads a batch, which must be in rollout order."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(_FIELDS))
        order = [rollout_order(key) for key in batch.keys]
        infos = [info.get("reward_extra_info", {}) for info in plain(data["extra_fields"])]
        rewards = [sum(row) for row in _rows(data["rm_scores"])]
        return cls(
            keys=list(batch.keys),
            uids=[uid for uid, _, _ in order],
            sessions=[session for _, session, _ in order],
            indices=[int(index) for index in plain(data["index"])],
            data_sources=[str(source) for source in plain(data["data_source"])],
            rewards=rewards,
            scores={name: [_score(name, *both) for both in zip(infos, rewards)] for name in SCORES},
            prompt_lengths=[int(tag["prompt_len"]) for tag in batch.tags],
            response_lengths=[int(tag["response_len"]) for tag in batch.tags],
            responses=_rows(data["responses"]),
            log_probs=_rows(data["rollout_log_probs"]),
            reward_parts=gathered([info.get(PARTS, {}) for info in infos]),
            first_error=next((info["error"] for info in infos if info.get("error")), None),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> "Rollouts":
        """The given rows, without the extra and the filtered responses."""
        picked: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name in ("scores", "reward_parts"):
                picked[name] = {score: [values[row] for row in rows] for score, values in value.items()}
            elif name == "first_error":
                picked[name] = value
            elif name not in ("extra", "filtered"):
                picked[name] = [value[row] for row in rows] if value else []
        return Rollouts(**picked)

    def joined_with(self, more: "Rollouts") -> "Rollouts":
        """These rows and then those, without extra and filtered ones."""
        joined: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "scores":
                joined[name] = {score: [*values, *more.scores[score]] for score, values in value.items()}
            elif name == "reward_parts":
                joined[name] = join_parts(value, len(self), more.reward_parts, len(more))
            elif name == "first_error":
                joined[name] = value or more.first_error
            elif name not in ("extra", "filtered"):
                joined[name] = [*value, *getattr(more, name)]
        return Rollouts(**joined)

    def parts(self) -> list["Rollouts"]:
        """Everything that was drawn in the step: the trained responses, extra ones, filtered ones and their extra ones."""
        found = [self, self.extra]
        if self.filtered is not None:
            found += [self.filtered, self.filtered.extra]
        return [part for part in found if part is not None]

    def aligned_with(self, keys: Sequence[str]) -> "Rollouts":
        """In the order of `keys`. verl pads a batch that a failed rollout left short with rows of its own; such a row
        gets reward 0 in a group of its own, so that it moves nothing."""
        if list(keys) == self.keys:
            return self
        position = {key: row for row, key in enumerate(self.keys)}
        result = self.take([position.get(key, 0) for key in keys])
        result.keys, result.extra, result.filtered = list(keys), self.extra, self.filtered
        for row, key in enumerate(keys):
            if key not in position:
                result.uids[row], result.rewards[row], result.response_lengths[row] = f"{PADDING}{row}", 0.0, 0
                if result.truncated:
                    result.truncated[row] = False
        return result

    def other_scores(self) -> dict[str, float]:
        """Mean flexible and format score, and on MATH the lenient one, which elsewhere is the strict one; a user's own data
        set, which has no such rules, has none."""
        names = ["flexible", "format", *["lenient"] * any(map(has_lenient_rule, set(self.data_sources)))]
        means = {name: float(np.mean(self.scores[name])) for name in names}
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def query_keys(self) -> list[QueryKey]:
        """(data source, dataset index) of each response: what a reward history is kept by."""
        return list(zip(self.data_sources, self.indices, strict=True))

    def token_level_rewards(self, response_mask: torch.Tensor) -> torch.Tensor:
        """(S, T): the reward at the last response token, 0 elsewhere."""
        rewards = torch.zeros_like(response_mask, dtype=torch.float32)
        last = (response_mask.sum(dim=1) - 1).clamp(min=0).long()
        rewards[torch.arange(len(self)), last] = torch.tensor(self.rewards, dtype=torch.float32)
        return rewards

    def with_rewards(self, rewards: Sequence[float]) -> "Rollouts":
        return replace(self, rewards=list(rewards))

    def write_rewards(self, batch: KVBatchMeta) -> None:
        """Puts these rewards in the place of those that were fetched, for what verl's own code reads.

        Args:
            batch: the rows in this order.
        """
        scores = [torch.zeros(max(len(ids), 1)) for ids in self.responses]
        for row, reward in zip(scores, self.rewards, strict=True):
            row[-1] = reward
        fields = TensorDict({"rm_scores": nested(scores)}, batch_size=len(scores))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def _rows(jagged: torch.Tensor) -> list[list]:
    return [row.tolist() for row in rows_of(jagged)]


def _score(name: str, info: Mapping[str, Any], reward: float) -> float:
    """One score of one response. Where no rule of ours applies (a data set of the user's, scored by the user's own
    function), the reward is the strict score: Pass@1 then is the mean reward."""
    value = float(info.get(name, math.nan if name == "strict" else 0.0))
    return reward if name == "strict" and math.isnan(value) else value


def split_sessions(rollouts: Rollouts, n: int) -> tuple[Rollouts, Rollouts | None]:
    """The first n responses of each query, and the extra ones, which are never trained on; None: there are none."""
    extra = [row for row, session in enumerate(rollouts.sessions) if session >= n]
    if not extra:
        return rollouts, None
    trained = [row for row, session in enumerate(rollouts.sessions) if session < n]
    return rollouts.take(trained), rollouts.take(extra)


def split_extra(batch: KVBatchMeta, rollouts: Rollouts, n: int) -> tuple[KVBatchMeta, Rollouts]:
    """The first n responses of each query; the extra ones leave the queue and stay beside them (`Rollouts.extra`)."""
    trained, extra = split_sessions(rollouts, n)
    if extra is None:
        return batch, rollouts
    trained.extra = extra
    tq.kv_clear(keys=extra.keys, partition_id=batch.partition_id)
    place = {key: row for row, key in enumerate(batch.keys)}
    kept = KVBatchMeta(
        partition_id=batch.partition_id,
        keys=list(trained.keys),
        tags=[batch.tags[place[key]] for key in trained.keys],
        extra_info=batch.extra_info,
    )
    return kept, trained
