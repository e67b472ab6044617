"""verl's replay buffer without its two surprises.

verl 0.9.1 (verl/trainer/ppo/v1/replay_buffer.py) asks every 2 seconds whether the rollouts are done, which is most of
a small model's step, and hands them out in the order in which they ended, so that two runs of one seed differ. Here it
asks every few milliseconds and sorts by query, then rollout. (Not to be confused with the reward history of the replay
arms: verl's buffer hands fresh rollouts to the trainer.)
"""

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

POLL_SECONDS = 0.02


def rollout_order(key: str) -> tuple[str, int, int]:
    """Sort key of verl's "{uid}_{session}_{output}": our uids sort in the order of the batch."""
    uid, session, output = key.rsplit("_", 2)
    return uid, int(session), int(output)


class OrderedReplayBuffer(ReplayBuffer):
    """A batch is the same, in the same order, whatever order its rollouts ended in."""

    def __init__(self, *args, poll_interval: float = POLL_SECONDS, **kwargs):
        super().__init__(*args, poll_interval=poll_interval, **kwargs)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        order = sorted(range(len(batch.keys)), key=lambda row: rollout_order(batch.keys[row]))
        return (
            KVBatchMeta(
                partition_id=batch.partition_id,
                keys=[batch.keys[row] for row in order],
                tags=[batch.tags[row] for row in order],
                extra_info=batch.extra_info,
            ),
            metrics,
        )
