"""Malformed sources stop with file, row and field; every layout gives the same questions."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from Verl.data import gsm8k, hendrycks_math, prompts
from Verl.data.hendrycks_math import last_boxed, latex_key
from Verl.data.readers import find_split, read_files
from Verl.data.schema import DataError
from Verl.data.splits import parse_rows
from Verl.reward import sources

GOOD_GSM8K = {"question": "One and one?", "answer": "Add.\n#### 2"}
GOOD_MATH = {"problem": "Find $x$.", "solution": "So $\\boxed{2}$.", "level": "Level 1", "type": "Algebra"}
GOOD_VERL = {
    "prompt": [{"role": "user", "content": prompts.gsm8k_prompt("One and one?")}],
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"split": "train", "index": 0},
}


@pytest.mark.parametrize(
    ("parse", "good", "changes", "field", "words"),
    [
        (gsm8k, GOOD_GSM8K, {"question": None}, "question", "missing"),
        (gsm8k, GOOD_GSM8K, {"answer": None}, "answer", "missing"),
        (gsm8k, GOOD_GSM8K, {"question": 7}, "question", "int, not text"),
        (gsm8k, GOOD_GSM8K, {"question": "  "}, "question", "empty"),
        (gsm8k, GOOD_GSM8K, {"answer": "It is 2."}, "answer", "#### <number>"),
        (gsm8k, GOOD_GSM8K, {"answer": "#### two"}, "answer", "#### <number>"),
        (gsm8k, GOOD_GSM8K, {"answer": "#### \u0661\u0668"}, "answer", "#### <number>"),
        (gsm8k, GOOD_GSM8K, {"question": "One \ud83d?"}, "question", "half of a character"),
        (gsm8k, GOOD_VERL, {"reward_model": None}, "reward_model.ground_truth", "missing"),
        (gsm8k, GOOD_VERL, {"reward_model": {"ground_truth": 2}}, "reward_model.ground_truth", "int, not text"),
        (gsm8k, GOOD_VERL, {"reward_model": {"ground_truth": "two"}}, "reward_model.ground_truth", "not a number"),
        (gsm8k, GOOD_VERL, {"reward_model": {"ground_truth": "2 eggs"}}, "reward_model.ground_truth", "not a number"),
        (gsm8k, GOOD_VERL, {"prompt": []}, "prompt", "does not end with a user message"),
        (gsm8k, GOOD_VERL, {"prompt": [{"role": "user", "content": "Answer: 1+1"}]}, "prompt", "followed by"),
        (gsm8k, GOOD_VERL, {"extra_info": {"index": "0"}}, "extra_info.index", "not a row number"),
        (hendrycks_math, GOOD_MATH, {"problem": None}, "problem", "missing"),
        (hendrycks_math, GOOD_MATH, {"solution": 3}, "solution", "int, not text"),
        (hendrycks_math, GOOD_MATH, {"solution": "So 2."}, "solution", "boxed"),
        (hendrycks_math, GOOD_MATH, {"solution": "So \\boxed{2"}, "solution", "boxed"),
        (hendrycks_math, GOOD_MATH, {"level": "\udc00"}, "level", "half of a character"),
        (hendrycks_math, GOOD_MATH, {"level": 1.5}, "level", "float, not a number or text"),
        (hendrycks_math, GOOD_MATH, {"answer": 2}, "answer", "int, not text"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, parse, good, changes, field, words):
    bad = {name: value for name, value in {**good, **changes}.items() if value is not None}
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, good, bad)))
    read = read_files([path]).rows
    assert parse.to_question(read[1])
    with pytest.raises(DataError) as caught:
        parse.to_question(read[2])
    message = str(caught.value)
    assert message.startswith(f"{path}: row 3, field {field!r} ") and words in message


def test_an_index_that_two_rows_carry_is_named(tmp_path, write_jsonl):
    rows = [{**GOOD_VERL, "extra_info": {"index": index}} for index in (5, 7, 5)]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=rf"{path}: row 3, field 'extra_info.index' is 5, which row 1 has too"):
        parse_rows(read_files([path]).rows, gsm8k.to_question)


def test_a_source_that_cannot_be_read_is_reported(tmp_path):
    for name in ("train.jsonl", "train.parquet"):
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=f"{name}: "):
            read_files([tmp_path / name])


@pytest.mark.parametrize(
    ("line", "words"),
    [(b'{"question": "cut o', "row 2 is not JSON"), (b"[1, 2]", "row 2 is list"), (b"", "row 2 is not JSON"),
     (b'{"question": "\xff"}', "row 2 is not JSON")],
)  # fmt: skip
def test_a_bad_json_line_is_named(tmp_path, line, words):
    path = tmp_path / "train.jsonl"
    good = json.dumps(GOOD_GSM8K).encode()
    path.write_bytes(b"\n".join([good, line, good]) + b"\n")
    with pytest.raises(DataError, match=words) as caught:
        read_files([path])
    assert str(caught.value).startswith(f"{path}: ")


def test_files_without_rows_and_cut_parquet_are_refused(tmp_path):
    (tmp_path / "train.jsonl").touch()
    pq.write_table(pa.Table.from_pylist([GOOD_GSM8K] * 9), tmp_path / "train.parquet")
    (tmp_path / "test.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-9])
    for name, words in (("train.jsonl", "no rows"), ("test.parquet", "not a whole parquet")):
        with pytest.raises(DataError, match=f"{name}: .*{words}"):
            read_files([tmp_path / name])


def test_a_line_separator_inside_a_string_is_no_new_row(tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "train.jsonl", [{"question": "a\u2028b\x85c", "answer": "#### 1"}])
    assert [row.values["question"] for row in read_files([path]).rows] == ["a\u2028b\x85c"]


def test_the_shards_of_the_hub_are_read_in_order_and_all(tmp_path):
    folder = tmp_path / "main"
    folder.mkdir()
    for part in (1, 0):
        pq.write_table(
            pa.Table.from_pylist([{"question": f"q{part}{i}?", "answer": "#### 1"} for i in range(2)]),
            folder / f"train-0000{part}-of-00002.parquet",
        )
    rows = read_files(find_split([tmp_path], "train")).rows
    assert [row.values["question"] for row in rows] == ["q00?", "q01?", "q10?", "q11?"]
    assert [(row.index, row.number) for row in rows] == [(0, 1), (1, 2), (2, 1), (3, 2)]
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="2 parts by its name, 1 in the folder"):
        find_split([tmp_path], "train")


def test_two_candidates_are_refused(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "train.jsonl", [GOOD_GSM8K])
    (tmp_path / "train.parquet").touch()
    with pytest.raises(DataError, match=r"train.jsonl and train.parquet"):
        find_split([tmp_path], "train")


def test_verl_rows_keep_their_index_and_lose_the_instruction(tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "train.jsonl", [{**GOOD_VERL, "extra_info": {"split": "train", "index": 41}}])
    question = gsm8k.to_question(read_files([path]).rows[0])
    assert (question.text, question.ground_truth, question.index) == ("One and one?", "2", 41)
    assert question.data_source == sources.GSM8K


@pytest.mark.parametrize(
    ("answer", "number"),
    [("#### 5,600", "5600"), ("a\n#### -3", "-3"), ("#### 1 so #### 2.50", "2.50"), ("####7\n", "7"),
     ("#### 1\nno", None), ("#### ", None), ("7", None), ("#### ,", None), ("#### .5", ".5")],
)  # fmt: skip
def test_final_number(answer, number):
    assert gsm8k.final_number(answer) == number


@pytest.mark.parametrize(
    ("text", "content"),
    [(r"\boxed{1} then \boxed{2}", "2"), (r"\boxed{\frac{1}{2}} x}", r"\frac{1}{2}"), (r"\boxed{}", ""),
     (r"\boxed{\left\{1\right.}", r"\left\{1\right."), (r"\boxed{a\\}", r"a\\"), (r"$\boxed 5$ .", "5"),
     (r"\fbox{3}", "3"), (r"\boxed{3} \fbox{4}", "3"), (r"\boxed{1} \boxed{2", None),
     ("none", None), (r"\boxed", None)],
)  # fmt: skip
def test_last_boxed(text, content):
    assert last_boxed(text) == content


def test_the_latex_key_sees_through_typesetting_only():
    assert latex_key(r"What is $f(12)-f(2)?$") == latex_key("What is $f(12) - f(2)$?")
    assert latex_key("$2x^{2}+3x$") == latex_key("$2x^2 + 3x$")
    assert latex_key(r"\[a=1\]for all $n.$") == latex_key("$a = 1$ for all $n$.")
    assert latex_key(r"$\log_8 2$") == latex_key(r"$\log_82$")
    for one, other in (
        ("225", "22.5"),
        ("x+1", "x-1"),
        ("k > 0", "k < 0"),
        ("88/(4/2)", "88/4/2"),
        ("n!", "n"),
        ("(1,23)", "(12,3)"),
    ):
        assert latex_key(one) != latex_key(other)


def test_the_prompts_are_the_published_ones_and_leave_the_question_alone():
    assert prompts.gsm8k_prompt(" 1 + 1?\n") == (
        ' 1 + 1?\n Let\'s think step by step and output the final answer after "####".'
    )
    assert prompts.math_prompt(" $x$?\n") == (
        " $x$?\n Let's think step by step and output the final answer within \\boxed{}."
    )
