"""The local queue answers as TransferQueue does, and worker calls through it get and leave their rows."""

import inspect

import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import nested, plain, rows_of, stacked
from Verl.cpu import local_queue
from Verl.cpu.local_queue import Ends, LocalQueue

KEYS = [f"00000001-00000{query}_{session}_0" for query in range(3) for session in range(2)]


def ragged(first: int) -> list[torch.Tensor]:
    return [torch.arange(first + row, first + 2 * row + 1) for row in range(len(KEYS))]


def play(queue, partition: str) -> list:
    """What a step asks of a queue, and everything that came back, in plain values."""
    seen = []

    def look(keys, fields=None):
        data = queue.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
        columns = {}
        for name, value in data.items():
            is_tensor = isinstance(value, torch.Tensor)
            columns[name] = [row.tolist() for row in rows_of(value)] if is_tensor else plain(value)
        seen.append((len(data), columns))

    queue.kv_batch_put(keys=["query"], partition_id=partition, tags=[{"is_prompt": True, "status": "pending"}])
    queue.kv_batch_put(
        keys=KEYS,
        partition_id=partition,
        fields=TensorDict(
            {"responses": nested(ragged(3)), "source": stacked(["a", "b", "c", "d", "e", "f"])}, batch_size=len(KEYS)
        ),
        tags=[{"status": "success", "row": row} for row in range(len(KEYS))],
    )
    queue.kv_batch_put(keys=["query"], partition_id=partition, tags=[{"status": "finished"}])
    look(KEYS)
    look(KEYS[::-1], ["source", "responses"])  # in the order that is asked for
    look(KEYS[1:4], ["responses", "nobody wrote this"])
    backwards = KEYS[::-1]  # a further field, written in another order
    put = queue.kv_batch_put(
        keys=backwards, partition_id=partition, fields=TensorDict({"advantages": nested(ragged(50))}, batch_size=len(KEYS))
    )
    seen.append((put.keys, sorted(put.fields), put.tags, put.partition_id))
    look(KEYS, ["advantages", "responses"])
    queue.kv_clear(keys=KEYS[:2], partition_id=partition)
    look(KEYS[2:])
    further = ["more"]  # a row that was written apart, asked for among the others
    queue.kv_batch_put(
        keys=further,
        partition_id=partition,
        fields=TensorDict({"responses": nested([torch.tensor([7, 7])])}, batch_size=1),
        tags=[{"status": "success"}],
    )
    look([KEYS[4], "more", KEYS[2]], ["responses"])
    seen.append(queue.kv_list().get(partition))
    queue.kv_clear(keys=[*KEYS, "more", "query"], partition_id=partition)
    seen.append(queue.kv_list().get(partition) or None)
    return seen


def test_a_step_with_hand_written_answers():
    seen = play(LocalQueue(), "train")
    rows = [row.tolist() for row in ragged(3)]
    assert seen[0] == (6, {"responses": rows, "source": list("abcdef")})
    assert seen[1] == (6, {"responses": rows[::-1], "source": list("fedcba")})
    assert seen[2] == (3, {"responses": rows[1:4]})
    assert seen[3][:2] == (KEYS[::-1], ["advantages", "responses", "source"]) and seen[3][2][0]["row"] == 5
    assert seen[4][1]["advantages"] == [row.tolist() for row in ragged(50)][::-1]
    assert seen[6] == (3, {"responses": [rows[4], [7, 7], rows[2]]})
    assert seen[7]["query"] == {"is_prompt": True, "status": "finished"}  # tags are added to, not replaced
    assert seen[8] is None


@pytest.mark.slow
def test_transfer_queue_answers_the_same():
    import ray

    ray.init(num_cpus=4, include_dashboard=False, logging_level="warning")
    try:
        tq.init()
        assert play(tq, "train") == play(LocalQueue(), "train")
        tq.close()
    finally:
        ray.shutdown()


def test_wrong_calls_are_refused():
    queue = LocalQueue()
    with pytest.raises(ValueError, match="fields, tags or both"):
        queue.kv_batch_put(keys=["a"], partition_id="train")
    with pytest.raises(ValueError, match="2 keys, but tags for 1"):
        queue.kv_batch_put(keys=["a", "b"], partition_id="train", tags=[{}])
    with pytest.raises(ValueError, match="'a'.*not in the queue's partition train"):
        queue.kv_batch_get(keys=["a"], partition_id="train")


@pytest.mark.parametrize("name", ["kv_batch_put", "kv_batch_get", "kv_clear", "kv_list"])
def test_it_takes_the_calls_that_transfer_queue_takes(name):
    theirs, ours = (inspect.signature(getattr(owner, name)).parameters for owner in (tq, LocalQueue()))
    assert list(ours) == list(theirs)


def test_it_is_there_meanwhile_and_gone_afterwards():
    before = tq.kv_batch_put
    with pytest.raises(RuntimeError, match="on purpose"), local_queue.installed() as queue:
        assert tq.kv_batch_put == queue.kv_batch_put
        raise RuntimeError("on purpose")
    assert tq.kv_batch_put is before


class Group:
    """A worker group that doubles a field."""

    size = 1

    def double(self, data: TensorDict) -> TensorDict:
        assert set(data.keys()) == {"responses", "temperature"}
        return TensorDict({"twice": nested([2 * row for row in rows_of(data["responses"])])}, batch_size=len(data))

    def count(self, data: TensorDict) -> TensorDict:
        return TensorDict({"rows": len(data)}, batch_size=[])

    def greet(self, name: str) -> str:
        return f"hello {name}"


def test_a_worker_call_gets_the_rows_and_leaves_its_own():
    queue = LocalQueue()
    fields = {"responses": nested(ragged(0)), "source": stacked(list("abcdef"))}
    queue.kv_batch_put(KEYS, "train", fields=TensorDict(fields, batch_size=len(KEYS)), tags=[{}] * len(KEYS))
    group, some = Ends(Group(), queue), KEYS[3:0:-1]
    batch = KVBatchMeta(
        keys=some, tags=[{}] * 3, partition_id="train", fields=["responses"], extra_info={"temperature": 0.5}
    )
    back = group.double(batch)
    assert isinstance(back, KVBatchMeta) and back.keys == some
    twice = queue.kv_batch_get(some, "train", ["twice"])["twice"]
    assert [row.tolist() for row in rows_of(twice)] == [(2 * row).tolist() for row in ragged(0)[3:0:-1]]
    assert int(group.count(batch)["rows"]) == 3  # an answer for the batch as a whole comes back as it is
    assert group.greet("you") == "hello you" and group.size == 1
