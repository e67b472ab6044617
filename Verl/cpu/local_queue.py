"""The transfer queue's key-value interface inside one process.

verl 0.9.1 hands a step's data from process to process through TransferQueue (0.1.11): a controller and a storage process,
and every field of every row a message part of its own, 10 ms a field and way at 256 rows. Where one process draws the
responses, trains and evaluates (batched_loop.py), the rows never have to leave it: here they stay in it, under
the same keys, fields and tags, for whoever calls `transfer_queue.kv_*`. What a training worker needs goes to it with the
call: verl's workers take a TensorDict as well as a batch's keys, and what they answer is kept here (`Ends`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from Verl.adapter.interface import replaced
from Verl.adapter.nested import nested, plain, rows_of, stacked


@dataclass
class _Block:
    """Rows that were written together: a column per field, and where each key's row is."""

    place: dict[str, int]
    columns: dict[str, Any]

    def rows(self, keys: Sequence[str], name: str) -> Any:
        """A column in the order of these keys."""
        column = self.columns[name]
        if list(self.place) == list(keys) and len(column) == len(keys):
            return column
        return _picked(column, [self.place[key] for key in keys])


def _picked(column: Any, rows: list[int]) -> Any:
    if isinstance(column, torch.Tensor) and column.is_nested:
        every = rows_of(column)
        return nested([every[row] for row in rows])
    if isinstance(column, torch.Tensor):
        return column[rows]
    values = plain(column)
    return stacked([values[row] for row in rows])


def _joined(columns: list[Any]) -> Any:
    if isinstance(columns[0], torch.Tensor) and columns[0].is_nested:
        return nested([row for column in columns for row in rows_of(column)])
    if isinstance(columns[0], torch.Tensor):
        return torch.cat(columns)
    return stacked([value for column in columns for value in plain(column)])


class LocalQueue:
    """`kv_batch_put`, `kv_batch_get`, `kv_clear` and `kv_list` of TransferQueue, with its contract."""

    def __init__(self) -> None:
        self._tags: dict[str, dict[str, dict[str, Any]]] = {}
        self._blocks: dict[str, list[_Block]] = {}

    def kv_batch_put(
        self,
        keys: list[str],
        partition_id: str,
        fields: TensorDict | None = None,
        tags: list[dict[str, Any]] | None = None,
        data_parser: None = None,
    ) -> KVBatchMeta:
        """Fields and tags of these keys, new ones or further ones.

        Raises:
            ValueError: neither is given, or their number is not that of the keys.
        """
        if fields is None and tags is None:
            raise ValueError("give fields, tags or both")
        for what, given in (("fields", fields), ("tags", tags)):
            if given is not None and len(given) != len(keys):
                raise ValueError(f"{len(keys)} keys, but {what} for {len(given)}")
        known = self._tags.setdefault(partition_id, {})
        for row, key in enumerate(keys):
            known.setdefault(key, {}).update(tags[row] if tags is not None else {})
        if fields is not None:
            self._write(keys, partition_id, dict(fields.items()))
        return KVBatchMeta(
            keys=list(keys),
            tags=[known[key] for key in keys],
            partition_id=partition_id,
            fields=self._names(keys, partition_id),
        )

    def _write(self, keys: list[str], partition_id: str, columns: dict[str, Any]) -> None:
        blocks = self._blocks.setdefault(partition_id, [])
        for block in blocks:
            if block.place.keys() == set(keys) and list(block.place.values()) == list(range(len(keys))):
                order = {key: row for row, key in enumerate(keys)}
                rows = [order[key] for key in block.place]
                same = rows == list(range(len(rows)))
                block.columns |= columns if same else {name: _picked(column, rows) for name, column in columns.items()}
                return
        blocks.append(_Block({key: row for row, key in enumerate(keys)}, columns))

    def _names(self, keys: Sequence[str], partition_id: str) -> list[str]:
        """The fields that every one of these keys has, in the order in which they came."""
        having: dict[str, set[str]] = {}
        for block in self._blocks.get(partition_id, ()):
            for name in block.columns:
                having.setdefault(name, set()).update(block.place.keys() & set(keys))
        return [name for name, found in having.items() if len(found) == len(keys)]

    def kv_batch_get(
        self, keys: list[str] | str, partition_id: str, select_fields: list[str] | str | None = None
    ) -> TensorDict:
        """The rows of these keys, in their order; a field that no one has written is left out.

        Raises:
            ValueError: a key is not here.
        """
        keys = [keys] if isinstance(keys, str) else list(keys)
        wanted = [select_fields] if isinstance(select_fields, str) else select_fields
        missing = [key for key in keys if key not in self._tags.get(partition_id, {})]
        if missing or not keys:
            raise ValueError(f"{missing[:1] or 'no key'} is not in the queue's partition {partition_id}")
        names = [name for name in self._names(keys, partition_id) if wanted is None or name in wanted]
        return TensorDict({name: self._column(keys, partition_id, name) for name in names}, batch_size=len(keys))

    def _column(self, keys: list[str], partition_id: str, name: str) -> Any:
        blocks = [block for block in self._blocks[partition_id] if name in block.columns]
        for block in reversed(blocks):  # what was written last counts
            if block.place.keys() >= set(keys):
                return block.rows(keys, name)
        holder = {key: number for number, block in enumerate(blocks) for key in block.place}
        parts = [(holder[key], key) for key in keys]
        numbers = sorted({number for number, _ in parts})
        joined = _joined([blocks[n].rows([key for number, key in parts if number == n], name) for n in numbers])
        written = [key for n in numbers for number, key in parts if number == n]
        place = {key: row for row, key in enumerate(written)}
        return _picked(joined, [place[key] for key in keys])

    def kv_clear(self, keys: list[str] | str, partition_id: str) -> None:
        """Forgets these keys; one that is not here is passed over."""
        for key in [keys] if isinstance(keys, str) else keys:
            self._tags.get(partition_id, {}).pop(key, None)
            for block in self._blocks.get(partition_id, ()):
                block.place.pop(key, None)
        self._blocks[partition_id] = [block for block in self._blocks.get(partition_id, ()) if block.place]

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        """Tags by partition and key."""
        return {name: dict(tags) for name, tags in self._tags.items() if tags and partition_id in (None, name)}


class Ends:
    """A worker group whose calls take a batch's keys, though its processes know no queue: the rows go with the call, and
    what comes back for each row is written here. What verl's `tqbridge` does at the workers' end, at this one."""

    def __init__(self, group: Any, queue: LocalQueue):
        self._group, self._queue = group, queue

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._group, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if not (len(args) == 1 and not kwargs and isinstance(args[0], KVBatchMeta)):
                return found(*args, **kwargs)
            return self._with_rows(found, args[0])

        return call

    def _with_rows(self, method: Any, batch: KVBatchMeta) -> Any:
        data = _tensors(self._queue.kv_batch_get(batch.keys, batch.partition_id, batch.fields))
        tu.assign_non_tensor(data, **batch.extra_info)
        output = method(data)
        if not isinstance(output, TensorDict) or not output.batch_size:
            return output
        return self._queue.kv_batch_put(batch.keys, batch.partition_id, fields=_tensors(output))


def _tensors(data: TensorDict) -> TensorDict:
    return data.select(*[name for name, value in data.items() if isinstance(value, torch.Tensor)])


@contextmanager
def installed() -> Iterator[LocalQueue]:
    """Everything in this process that calls `transfer_queue.kv_*` meets a new local queue meanwhile."""
    queue = LocalQueue()
    with replaced(
        kv_batch_put=queue.kv_batch_put,
        kv_batch_get=queue.kv_batch_get,
        kv_clear=queue.kv_clear,
        kv_list=queue.kv_list,
    ):
        yield queue
