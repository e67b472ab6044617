"""Which responses the loss leaves out: cut off by the length limit (`algorithm.mask_truncated`), or of the other kind than
those that are trained on (`algorithm.train_on`).

DAPO (Yu et al. 2025, arXiv 2503.14476, section 3.4) calls the latter overlong filtering: "masks the loss of truncated
samples". A masked response is in no term of the loss (policy gradient, KL, entropy) and, with loss_agg_mode=token-mean, not
in its denominator. Its reward still counts in the statistics of its group, and in a reward history: it says how the query
fares. (The paper says nothing of that; TRL's `mask_truncated_completions` does the same.)

A response was cut off if its last token is no end token: the limit, and nothing else, ends it then. So the criterion is the
same on a CPU and with vLLM, whose agent loop does not hand the reason on.

`train_on=right` trains on responses with a reward above 0 alone, as RAFT does, which throws all others away (Xiong et al.
2025, arXiv 2504.11343); `wrong` on the others alone (negative sample reinforcement: Zhu et al. 2025, arXiv 2506.01347). What
is left out is left out in the same way: of the loss, and not of its group's statistics or a reward history.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import nested, rows_of


def cut_off(responses: Sequence[Sequence[int]], ends: set[int]) -> list[bool]:
    """Per response: whether the length limit ended it. An empty response was not cut off."""
    return [bool(ids) and ids[-1] not in ends for ids in responses]


def not_trained_on(rewards: Sequence[float], truncated: Sequence[bool], algorithm: DictConfig) -> list[bool]:
    """Per response: whether `algorithm.mask_truncated` or `algorithm.train_on` leave it out.

    Args:
        rewards: that train.
        truncated: whether the length limit ended it.
    """
    kind = {"all": None, "right": False, "wrong": True}[algorithm.train_on]  # of the reward's sign: what is not trained on
    cut = truncated if algorithm.mask_truncated else [False] * len(rewards)
    return [one or (reward > 0) is kind for reward, one in zip(rewards, cut, strict=True)]


@dataclass
class LossMask:
    """The tokens that one step's loss is taken over, by response in the order of the batch.

    verl 0.9.1 reads two masks (verl/workers/utils/losses.py, verl/workers/engine/fsdp/transformer_impl.py):
    `response_mask` says which tokens are in the loss, the sum of `loss_mask` over a mini-batch is what a token mean divides
    by. (The sequence modes of loss_agg_mode divide by the number of responses, masked or not.)
    """

    original: torch.Tensor  # nested (S, t): the response mask as the rollout wrote it
    whole: list[torch.Tensor]  # its rows
    in_loss: list[torch.Tensor]  # S of (t,)
    counted: list[torch.Tensor]  # S of (t,)

    @classmethod
    def of(cls, original: torch.Tensor) -> "LossMask":
        rows = list(rows_of(original))
        return cls(original, rows, list(rows), list(rows))

    @classmethod
    def fetch(cls, batch: KVBatchMeta) -> "LossMask":
        return cls.of(tq.kv_batch_get(batch.keys, batch.partition_id, ["response_mask"])["response_mask"])

    @property
    def padded(self) -> torch.Tensor:
        """(S, T): the response mask as the rollout wrote it."""
        return self.original.to_padded_tensor(padding=0)

    @property
    def changed(self) -> bool:
        return any(a is not b for rows in (self.in_loss, self.counted) for a, b in zip(rows, self.whole, strict=True))

    @property
    def left_out(self) -> torch.Tensor:
        """(S,) bool: responses of which no token is in the loss. (verl's padding rows are none: they are no responses.)"""
        return torch.tensor([bool(a.any()) and not b.any() for a, b in zip(self.whole, self.in_loss, strict=True)])

    def reject(self, kept_ST: torch.Tensor) -> None:
        """Leaves tokens out of the loss, but not out of its denominator: verl's rejection (rollout_correction.rollout_rs).

        Args:
            kept_ST: (S, T), right-padded, 0 where a token is rejected.
        """
        self.in_loss = [row * kept[: len(row)].to(row.dtype) for row, kept in zip(self.in_loss, kept_ST, strict=True)]

    def leave_out(self, rows: Sequence[int], mini_batches: Sequence[Sequence[int]]) -> None:
        """Leaves whole responses out of the loss and of its denominator.

        A mini-batch of nothing else keeps its denominator, so that its loss is 0 / tokens and not 0 / 0: its gradient is 0.

        Args:
            mini_batches: the rows of the batch that are updated on together.
        """
        masked, padding = set(rows), {row for row, mask in enumerate(self.counted) if not mask.any()}
        empty = {row for mini_batch in mini_batches if (masked | padding).issuperset(mini_batch) for row in mini_batch}
        for row in masked:
            self.in_loss[row] = torch.zeros_like(self.in_loss[row])
            if row not in empty:
                self.counted[row] = torch.zeros_like(self.counted[row])

    def leave_out_where(self, unwanted: Sequence[bool], config: DictConfig, workers: int) -> None:
        """Leaves the marked responses of the batch out. Args: workers: that share an update."""
        size = config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        rows = [row for row, one in enumerate(unwanted) if one]
        self.leave_out(rows, mini_batches(len(self.whole), size, workers))

    @contextmanager
    def applied(self, batch: KVBatchMeta) -> Iterator[None]:
        """Around an update: the workers find these masks in the queue, everybody else, later, the original ones."""
        if not self.changed:
            yield
            return
        fields = {"response_mask": nested(self.in_loss), "loss_mask": nested(self.counted)}
        _put(batch, fields)
        if batch.fields is not None:  # the names that the update is sent
            batch.fields = list(dict.fromkeys([*batch.fields, *fields]))
        try:
            yield
        finally:
            _put(batch, {"response_mask": self.original, "loss_mask": self.original})


def mini_batches(responses: int, size: int, workers: int) -> list[list[int]]:
    """Rows of each mini-batch: verl gives every worker an equal stretch of the batch, and each goes through its own in order.

    Args:
        responses: in the batch.
        size: of a mini-batch, over all workers.
    """
    stretch, part = responses // workers, size // workers
    return [
        [worker * stretch + first + row for worker in range(workers) for row in range(part)]
        for first in range(0, stretch - part + 1, part)
    ]


def _put(batch: KVBatchMeta, fields: dict[str, torch.Tensor]) -> None:
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch)))
