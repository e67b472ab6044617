"""`check_parquet`: what is checked before Ray starts."""

from __future__ import annotations

import time

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from Verl.data.schema import PARQUET_SCHEMA, DataError, check_parquet, make_row
from Verl.reward import sources


def rows(count: int) -> list[dict]:
    return [
        make_row(
            data_source=sources.GSM8K,
            question=f"q{i}",
            prompt=f"q{i} " * 60,
            ability="math",
            ground_truth=str(i),
            split="train",
            index=i,
            answer="a" * 200,
        )
        for i in range(count)
    ]


def check(path) -> int:
    return check_parquet(path, known_data_sources=sources.KNOWN_DATA_SOURCES)


def write(path, values, schema=None):
    pq.write_table(pa.Table.from_pylist(values, schema=schema), path)
    return path


def change(values: list[dict], number: int, path: str, value: object) -> list[dict]:
    """Set one field of row `number` (from 1)."""
    target = values[number - 1]
    *parents, last = path.split(".")
    for name in parents:
        target = target[name]
    target[last] = value
    return values


def test_rows_are_counted(tmp_path):
    assert check(write(tmp_path / "a.parquet", rows(5), PARQUET_SCHEMA)) == 5


def test_ten_thousand_rows_take_well_under_a_second(tmp_path):
    path = write(tmp_path / "a.parquet", rows(10_000), PARQUET_SCHEMA)
    start = time.process_time()  # of the processor: what else the machine does is not measured
    assert check(path) == 10_000
    assert time.process_time() - start < 0.5  # 0.08 to 0.15 s measured on two shared cores


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data_source", "lighteval/MATH", r"row 3, field 'data_source' is 'lighteval/MATH', which no scorer accepts"),
        ("data_source", None, "row 3, field 'data_source' is empty"),
        ("prompt", [], "row 3, field 'prompt' has no message"),
        ("prompt", None, "row 3, field 'prompt' has no message"),
        ("prompt", [{"role": "user", "content": " "}], r"row 3, field 'prompt\[\].content' is empty"),
        ("prompt", [{"role": "user", "content": None}], r"row 3, field 'prompt\[\].content' is empty"),
        ("prompt", [{"role": "human", "content": "x"}], r"row 3, field 'prompt\[\].role' is not one of"),
        ("prompt", [{"role": "assistant", "content": "x"}], "row 3, field 'prompt' does not end with the user"),
        ("reward_model", None, "row 3, field 'reward_model.style' is empty"),
        ("reward_model.ground_truth", "", "row 3, field 'reward_model.ground_truth' is empty"),
        ("reward_model.ground_truth", "two", "row 3, field 'reward_model.ground_truth' is 'two', which the scorer of"),
        ("reward_model.ground_truth", None, "row 3, field 'reward_model.ground_truth' is empty"),
        ("extra_info.split", "", "row 3, field 'extra_info.split' is empty"),
        ("extra_info.index", None, "row 3, field 'extra_info.index' is not a row number"),
        ("extra_info.index", -1, "row 3, field 'extra_info.index' is not a row number"),
        ("extra_info.index", 1, "row 3, field 'extra_info.index' repeats"),
    ],
)
def test_a_bad_row_is_named(tmp_path, path, value, words):
    file = write(tmp_path / "a.parquet", change(rows(4), 3, path, value), PARQUET_SCHEMA)
    with pytest.raises(DataError, match=words) as caught:
        check(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "prepare.py" in message and "\n" not in message


def test_a_bad_message_is_found_behind_prompts_of_several_turns(tmp_path):
    values = rows(3)
    values[0]["prompt"] = [{"role": "system", "content": "s"}, *values[0]["prompt"]]
    assert check(write(tmp_path / "a.parquet", values, PARQUET_SCHEMA)) == 3
    values[2]["prompt"] = [{"role": "user", "content": ""}]
    with pytest.raises(DataError, match="row 3, field 'prompt"):
        check(write(tmp_path / "a.parquet", values, PARQUET_SCHEMA))


def _without(path: str) -> list[dict]:
    values = rows(2)
    name, _, child = path.partition(".")
    for value in values:
        del (value[name] if child else value)[child or name]
    return values


@pytest.mark.parametrize(
    "path",
    ["data_source", "prompt", "reward_model", "extra_info", "reward_model.style", "reward_model.ground_truth",
     "extra_info.index", "extra_info.split"],
)  # fmt: skip
def test_a_missing_field_is_named(tmp_path, path):
    file = write(tmp_path / "a.parquet", _without(path))
    with pytest.raises(DataError, match=f"a.parquet: (column|field) '{path}' is missing; run: python"):
        check(file)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data_source", 1, "'data_source' is int64, not text"),
        ("prompt", "text", "'prompt' is string, not a list"),
        ("prompt", ["text"], r"'prompt\[\].role' is missing"),
        ("prompt", [{"role": "user", "content": 1}], r"'prompt\[\].content' is int64, not text"),
        ("reward_model", "7", "'reward_model' is string, not a struct"),
        ("reward_model.ground_truth", 7, "'reward_model.ground_truth' is int64, not text"),
        ("extra_info.index", "0", "'extra_info.index' is string, not an integer"),
    ],
)
def test_a_wrong_type_is_named(tmp_path, path, value, words):
    with pytest.raises(DataError, match=words):
        check(write(tmp_path / "a.parquet", change(rows(1), 1, path, value)))


def test_what_is_no_parquet_with_rows_is_refused(tmp_path):
    whole = write(tmp_path / "whole.parquet", rows(50), PARQUET_SCHEMA)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "text.parquet").write_text("question,answer\n1,2\n")
    (tmp_path / "zero.parquet").touch()
    write(tmp_path / "none.parquet", [], PARQUET_SCHEMA)
    wanted = {
        "absent": "no such file", "cut": "not a whole parquet", "text": "not a whole parquet", "zero": r"0 bytes",
        "none": "no rows",
    }  # fmt: skip
    for name, words in wanted.items():
        with pytest.raises(DataError, match=f"{name}.parquet: .*{words}.*; run: python"):
            check(tmp_path / f"{name}.parquet")


def test_a_custom_reward_function_may_have_its_own_source(tmp_path):
    file = write(tmp_path / "a.parquet", change(rows(2), 1, "data_source", "mine"), PARQUET_SCHEMA)
    with pytest.raises(DataError, match="custom_reward_function"):
        check(file)
    assert check_parquet(file, known_data_sources=None) == 2
    assert check_parquet(file, known_data_sources={"mine", sources.GSM8K}) == 2


def test_verl_files_of_other_origin_pass(tmp_path):
    values = rows(3)
    for value in values:
        del value["ability"]
        value["extra_info"] = {"split": "train", "index": value["extra_info"]["index"]}
    frame = pd.DataFrame(values)
    frame["data_source"] = frame["data_source"].astype("category")
    frame.to_parquet(tmp_path / "pandas.parquet")
    assert check(tmp_path / "pandas.parquet") == 3
