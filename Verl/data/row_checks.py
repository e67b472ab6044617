"""The checks on a table of rows, column by column in pyarrow, so that 10,000 rows cost no more than a blink.

Each check finds the FIRST bad row and raises `DataError`: file, row (from 1), field, what is wrong, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from Verl.reward.score import score_fully
from Verl.reward.sources import KNOWN_DATA_SOURCES

ROLES = ("system", "user", "assistant")


class DataError(ValueError):
    """Data that a run must not start on. The message is one sentence for the user, with what to do about it."""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


# What every file must have (path, type test, the type in words). `question`, `answer`, `level`, `subject` and
# `ability` are always in ours, but a run can do without them, so a verl file of other origin is not refused.
_FIELDS: tuple[tuple[str, Callable[[pa.DataType], bool], str], ...] = (
    ("data_source", _is_text, "text"),
    ("prompt", _is_list, "a list of messages"),
    ("reward_model.style", _is_text, "text"),
    ("reward_model.ground_truth", _is_text, "text"),
    ("extra_info.split", _is_text, "text"),
    ("extra_info.index", pa.types.is_integer, "an integer"),
)


def check_table(table: pa.Table, file: str, known_data_sources: Collection[str] | None, *, remedy: str) -> None:
    """Raise DataError if `table` is not verl's schema, filled. `remedy` ends the sentence of most messages."""
    columns = {path: _column(table, path, test, words, file, remedy) for path, test, words in _FIELDS}
    _check_message_type(columns["prompt"].type, file, remedy)
    if table.num_rows == 0:
        raise DataError(f"{file}: the file has no rows; {remedy}")

    for path in ("data_source", "reward_model.style", "reward_model.ground_truth", "extra_info.split"):
        _refuse(_blank(columns[path]), file, path, "is empty", remedy)
    _check_sources(columns["data_source"], known_data_sources, file, remedy)
    if known_data_sources is not None:
        _check_truths(columns["reward_model.ground_truth"], columns["data_source"], file, remedy)
    _check_prompts(columns["prompt"], file, remedy)
    _check_index(columns["extra_info.index"], columns["data_source"], file, remedy)


def _column(
    table: pa.Table, path: str, test: Callable[[pa.DataType], bool], words: str, file: str, remedy: str
) -> pa.Array:
    """The values under a dotted path, one per row (null where a parent is null)."""
    name, _, child = path.partition(".")
    if name not in table.column_names:
        raise DataError(f"{file}: column {name!r} is missing; {remedy}")
    column = table.column(name)
    if child:
        if not pa.types.is_struct(column.type):
            raise DataError(f"{file}: column {name!r} is {column.type}, not a struct with a field {child!r}; {remedy}")
        if column.type.get_field_index(child) < 0:
            raise DataError(f"{file}: field {path!r} is missing; {remedy}")
        column = pc.struct_field(column, child)
    if pa.types.is_dictionary(column.type):  # a pandas category
        column = column.cast(column.type.value_type)
    if not test(column.type):
        raise DataError(f"{file}: field {path!r} is {column.type}, not {words}; {remedy}")
    return column.combine_chunks()


def _check_message_type(kind: pa.DataType, file: str, remedy: str) -> None:
    """A message of `prompt` must be {role: text, content: text}."""
    message = kind.value_type
    for name in ("role", "content"):
        if not pa.types.is_struct(message) or message.get_field_index(name) < 0:
            raise DataError(f"{file}: field 'prompt[].{name}' is missing; {remedy}")
        if not _is_text(message.field(name).type):
            raise DataError(f"{file}: field 'prompt[].{name}' is {message.field(name).type}, not text; {remedy}")


def _blank(values: pa.Array) -> np.ndarray:
    """True where a text is null or only white space."""
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
    return pc.fill_null(empty, True).to_numpy(zero_copy_only=False)


def _refuse(bad: np.ndarray, file: str, field: str, what: str, remedy: str, rows: np.ndarray | None = None) -> None:
    """Raise for the first True. `rows` maps positions to row numbers from 0 (default: they are the same)."""
    if not bad.any():
        return
    first = int(np.argmax(bad))
    row = first if rows is None else int(rows[first])
    raise DataError(f"{file}: row {row + 1}, field {field!r} {what}; {remedy}")


def _check_sources(values: pa.Array, known: Collection[str] | None, file: str, remedy: str) -> None:
    if known is None:
        return
    unknown = ~pc.is_in(values, value_set=pa.array(sorted(known), values.type)).to_numpy(zero_copy_only=False)
    if unknown.any():
        value = values[int(np.argmax(unknown))].as_py()
        what = f"is {value!r}, which no scorer accepts (known: {', '.join(sorted(known))})"
        _refuse(unknown, file, "data_source", what, f"{remedy}, or give reward.custom_reward_function")


def _check_truths(truths: pa.Array, sources: pa.Array, file: str, remedy: str) -> None:
    """Each true answer can be read by its scorer; else every response to that question would be a failure, reward 0."""
    seen: set[tuple[str, str]] = set()
    for row, pair in enumerate(zip(sources.to_pylist(), truths.to_pylist(), strict=True)):
        if pair in seen or pair[0] not in KNOWN_DATA_SOURCES:  # a source of the caller's own has a scorer of its own
            continue
        seen.add(pair)
        try:
            score_fully(pair[0], "", pair[1])  # an empty response: the truth is read, and math-verify not called
        except ValueError:
            what = f"is {pair[1]!r}, which the scorer of {pair[0]} can't read"
            raise DataError(f"{file}: row {row + 1}, field 'reward_model.ground_truth' {what}; {remedy}") from None


def _check_prompts(prompts: pa.Array, file: str, remedy: str) -> None:
    """A prompt is a non-empty list of messages with known roles and some text, the last one the user's."""
    lengths = pc.fill_null(pc.list_value_length(prompts), 0).to_numpy(zero_copy_only=False)
    _refuse(lengths == 0, file, "prompt", "has no message", remedy)
    messages = prompts.flatten()
    rows = np.repeat(np.arange(len(prompts)), lengths)
    roles, texts = pc.struct_field(messages, "role"), pc.struct_field(messages, "content")
    known = pc.is_in(roles, value_set=pa.array(ROLES, roles.type)).to_numpy(zero_copy_only=False)
    _refuse(~known, file, "prompt[].role", f"is not one of {', '.join(ROLES)}", remedy, rows)
    _refuse(_blank(texts), file, "prompt[].content", "is empty", remedy, rows)
    last = pc.equal(roles.take(pa.array(np.cumsum(lengths) - 1)), pa.scalar("user", roles.type))
    _refuse(~last.to_numpy(zero_copy_only=False), file, "prompt", "does not end with the user's message", remedy)


def _check_index(index: pa.Array, sources: pa.Array, file: str, remedy: str) -> None:
    """`extra_info.index` from 0, and once per data source: it is the key of a question's reward history."""
    bad = pc.fill_null(pc.less(index, 0), True).to_numpy(zero_copy_only=False)
    _refuse(bad, file, "extra_info.index", "is not a row number from 0", remedy)
    codes = pc.dictionary_encode(sources).indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keys = np.stack([codes, index.to_numpy(zero_copy_only=False).astype(np.int64)], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    repeated = np.ones(len(keys), dtype=bool)
    repeated[first] = False
    what = "repeats the index of an earlier row, and a question's history is kept by it"
    _refuse(repeated, file, "extra_info.index", what, remedy)
