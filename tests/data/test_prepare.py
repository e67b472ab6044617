"""The prepare scripts from end to end: published data in, a set out, on real and on made-up rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from Verl.data import prompts
from Verl.data.gsm8k import GSM8K, final_number
from Verl.data.hendrycks_math import MATH, last_boxed, latex_key
from Verl.data.prepare import main
from Verl.data.schema import normalise_question, require_prepared
from Verl.reward import sources


def questions(rows: list[dict]) -> list[str]:
    return [row["extra_info"]["question"] for row in rows]


def indices(rows: list[dict]) -> list[int]:
    return [row["extra_info"]["index"] for row in rows]


def counts(folder: Path) -> dict:
    return require_prepared(folder)["settings"]["counts"]


# --- the published data ---


def test_gsm8k_as_published(prepare, tmp_path, shared_data):
    got = prepare(GSM8K, tmp_path, "--source", shared_data / "gsm8k")
    assert {split: len(rows) for split, rows in got.items()} == {"train": 6961, "validation": 512, "test": 1319}
    found = counts(tmp_path)
    assert (found["train_read"], found["test_read"]) == (7473, 1319)
    assert (found["train_duplicates"], found["train_leaks"], found["train_without_answer"]) == (0, 0, 0)
    published = [json.loads(line) for line in (shared_data / "gsm8k" / "train.jsonl").open(encoding="utf-8")]
    for row in got["train"] + got["validation"]:
        source = published[row["extra_info"]["index"]]
        assert row["prompt"][0]["content"] == prompts.gsm8k_prompt(source["question"])
        assert row["extra_info"]["answer"] == source["answer"]
        assert row["reward_model"]["ground_truth"] == final_number(source["answer"])


def test_math_as_published(prepare, tmp_path, shared_data):
    got = prepare(MATH, tmp_path / "500", "--source", shared_data)
    full = prepare(MATH, tmp_path / "full", "--source", shared_data / "MATH", "--test", "full")
    # 7,500 less 4 duplicates, 4 questions of the test set and 2 without an answer, each looked at by hand.
    assert {split: len(rows) for split, rows in got.items()} == {"train": 6978, "validation": 512, "test": 500}
    assert {split: len(rows) for split, rows in full.items()} == {"train": 6978, "validation": 512, "test": 5000}
    found = counts(tmp_path / "full")
    assert (found["train_read"], found["test_read"], found["test_duplicates_kept"]) == (7500, 5000, 1)
    assert (found["train_duplicates"], found["train_leaks"], found["train_without_answer"]) == (4, 4, 2)
    gone = set(range(7500)) - set(indices(full["train"] + full["validation"]))
    assert gone == {959, 1227, 4322, 7378} | {750, 1414, 1598, 2948} | {5341, 5343}
    assert got["train"] == full["train"], "the choice of the test set must not change what is trained on"
    published = pq.read_table(shared_data / "MATH" / "train.parquet").to_pylist()
    for row in full["train"] + full["validation"]:  # the paper's own package: the same but for blanks
        source = published[row["extra_info"]["index"]]
        assert row["prompt"][0]["content"] == source["prompt"][0]["content"]
        truth = source["reward_model"]["ground_truth"].strip()
        assert row["reward_model"] == {"style": "rule", "ground_truth": "17" if truth == "{17}." else truth}
        assert (row["extra_info"]["level"], row["extra_info"]["subject"]) == (source["level"], source["type"])


def test_math_500_alone(prepare, tmp_path, shared_data):
    got = prepare(MATH, tmp_path, "--source", shared_data / "MATH-500" / "test.jsonl")
    assert list(got) == ["test"] and len(got["test"]) == 500
    for row in got["test"]:
        assert row["data_source"] == sources.MATH_500
        assert row["reward_model"]["ground_truth"] == last_boxed(row["extra_info"]["answer"])
        assert row["extra_info"]["level"].startswith("Level ")


@pytest.mark.parametrize(("data_set", "folder", "key"), [(GSM8K, "gsm8k", normalise_question), (MATH, ".", latex_key)])
def test_no_published_question_is_in_two_splits(prepare, tmp_path, shared_data, data_set, folder, key):
    got = prepare(data_set, tmp_path, "--source", shared_data / folder)
    keys = {split: {key(question) for question in questions(rows)} for split, rows in got.items()}
    assert not keys["train"] & keys["validation"]
    assert not (keys["train"] | keys["validation"]) & keys["test"]
    assert len(keys["train"]) == len(got["train"])


# --- seeds, bytes, leaks on made-up rows ---


def test_twice_the_same_bytes_from_anywhere(tmp_path, gsm8k_folder, run_script):
    moved = tmp_path / "elsewhere" / "gsm8k"
    moved.parent.mkdir()
    outs = [tmp_path / "a", tmp_path / "b"]
    assert run_script("gsm8k", "--source", gsm8k_folder, "--out", outs[0], "--validation", 4).returncode == 0
    gsm8k_folder.rename(moved)
    done = run_script("gsm8k", "--source", moved, "--out", outs[1], "--validation", 4, env={"PYTHONHASHSEED": "7"})
    assert done.returncode == 0
    names = sorted(path.name for path in outs[0].iterdir())
    assert names == ["manifest.json", "test.parquet", "train.parquet", "validation.parquet"]
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name


def test_the_seed_chooses_validation(prepare, tmp_path, gsm8k_folder):
    def chosen(name: str, *arguments: object) -> list[int]:
        got = prepare(GSM8K, tmp_path / name, "--source", gsm8k_folder, "--validation", 6, *arguments)
        assert len(got["validation"]) == 6
        assert sorted(indices(got["validation"]) + indices(got["train"])) == list(range(20))
        assert {row["extra_info"]["split"] for row in got["validation"]} == {"validation"}
        return indices(got["validation"])

    assert chosen("default") == chosen("0", "--seed", 0) != chosen("1", "--seed", 1)
    assert chosen("default") != list(range(6)), "the first rows are not a draw"


def test_the_draw_does_not_hang_on_the_row_order(prepare, tmp_path, write_jsonl):
    rows = [{"question": f"Number {i}?", "answer": f"#### {i}"} for i in range(30)]
    got = []
    for name, ordered in (("up", rows), ("down", rows[::-1])):
        write_jsonl(tmp_path / name / "train.jsonl", ordered)
        write_jsonl(tmp_path / name / "test.jsonl", [{"question": "Other?", "answer": "#### 1"}])
        out = prepare(GSM8K, tmp_path / f"{name}-out", "--source", tmp_path / name, "--validation", 5)
        got.append(sorted(questions(out["validation"])))
    assert got[0] == got[1]


def test_copies_and_leaks_are_dropped_and_counted(prepare, tmp_path, write_jsonl, capsys):
    def one(question: str) -> dict:
        return {"question": question, "answer": "#### 1"}

    train = ["First?", "second?", "FIRST ?", "Asked in the test?", "third?", "asked  in the\ttest?"]
    write_jsonl(tmp_path / "train.jsonl", [one(question) for question in train])
    write_jsonl(tmp_path / "test.jsonl", [one("Asked in the test?"), one("Twice?"), one("twice?")])
    got = prepare(GSM8K, tmp_path / "out", "--source", tmp_path, "--validation", 1)
    assert sorted(indices(got["train"] + got["validation"])) == [0, 1, 4], "the index is the row of the source"
    assert indices(got["test"]) == [0, 1, 2]
    found = counts(tmp_path / "out")
    assert (found["train_duplicates"], found["train_leaks"], found["test_duplicates_kept"]) == (1, 2, 1)
    printed = capsys.readouterr().out
    assert "6 read; dropped 1 duplicates, 2 leaks" in printed and "validation: 1 rows" in printed and str(tmp_path) in printed


def test_validation_zero_writes_none_and_too_many_are_refused(prepare, tmp_path, gsm8k_folder, capsys):
    got = prepare(GSM8K, tmp_path / "none", "--source", gsm8k_folder, "--validation", 0)
    assert set(got) == {"train", "test"}
    for size in (20, -1):
        assert main(GSM8K, tmp_path / "many", ["--source", str(gsm8k_folder), "--validation", str(size)]) == 1
        assert "--validation" in capsys.readouterr().err
    assert not (tmp_path / "many").exists()


@pytest.mark.parametrize("name", ["gsm8k", "arithmetic"])
def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path, gsm8k_folder, run_script, name):
    (tmp_path / "file").touch()
    source = ["--source", gsm8k_folder, "--validation", 4] if name == "gsm8k" else ["--train-size", 9]
    for out in (tmp_path / "file", "/proc/nowhere"):
        done = run_script(name, *source, "--out", out)
        assert done.returncode != 0 and "Traceback" not in done.stderr
        assert f"{out}: cannot be written to (" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokenizer", "/no/such/model"], "--tokenizer /no/such/model: no such folder; give"),
        (["--max-prompt-length", "100"], "--max-prompt-length 100: give --tokenizer too"),
        (["--math500", "/no/such.jsonl"], "--math500 /no/such.jsonl: no such file or folder"),
        (
            ["--math500", "/no/such.jsonl", "--test", "full"],
            "only used with a folder as --source and without --test full",
        ),
    ],
)
def test_an_option_that_would_do_nothing_or_fail_is_refused(tmp_path, math_folder, run_script, arguments, words):
    done = run_script("MATH", "--source", math_folder, "--validation", 2, "--out", tmp_path / "out", *arguments)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_refused_source_leaves_the_old_set(tmp_path, gsm8k_folder, run_script):
    out = tmp_path / "out"
    assert run_script("gsm8k", "--source", gsm8k_folder, "--out", out, "--validation", 4).returncode == 0
    before = require_prepared(out)
    with (gsm8k_folder / "train.jsonl").open("a") as file:
        file.write('{"question": "No answer?"}\n')
    done = run_script("gsm8k", "--source", gsm8k_folder, "--out", out, "--validation", 4)
    assert done.returncode == 1
    assert f"{gsm8k_folder / 'train.jsonl'}: row 21, field 'answer' is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert require_prepared(out) == before


# --- MATH on made-up rows, in the Hub's layouts ---


def test_math_in_the_layout_of_the_hub(prepare, tmp_path, math_folder):
    got = prepare(MATH, tmp_path / "out", "--source", math_folder, "--validation", 2)
    assert [row["data_source"] for row in got["test"]] == [sources.MATH_500]
    assert got["test"][0]["extra_info"]["level"] == "Level 2"
    kept = got["train"] + got["validation"]
    assert sorted(indices(kept)) == list(range(8)), "a question of the full test set, and one without an answer, go"
    for row in kept:
        number = str(row["extra_info"]["index"])
        assert row["reward_model"]["ground_truth"] == number
        assert row["prompt"][0]["content"] == prompts.math_prompt(f"Train ${number}$.")
        assert row["extra_info"]["answer"] == f"So $\\boxed{{{number}}}$."
    found = counts(tmp_path / "out")
    assert (found["train_leaks"], found["train_without_answer"]) == (1, 1)
    full = prepare(MATH, tmp_path / "full", "--source", math_folder, "--validation", 2, "--test", "full")
    assert [row["data_source"] for row in full["test"]] == [sources.MATH] * 2
    assert full["train"] == got["train"]


def test_math_500_is_requested_where_it_is_not_found(prepare, tmp_path, math_folder, capsys):
    (tmp_path / "MATH-500").rename(tmp_path / "five-hundred")
    command = ["--source", str(math_folder), "--validation", "2"]
    assert main(MATH, tmp_path / "out", command) == 1
    assert "give --math500 PATH, or choose --test full" in capsys.readouterr().err
    for path in (tmp_path / "five-hundred", tmp_path / "five-hundred" / "test.jsonl"):
        got = prepare(MATH, tmp_path / "out", *command, "--math500", path)
        assert len(got["test"]) == 1


def test_math_500_does_not_pass_for_the_full_test_set(tmp_path, math_folder, capsys):
    assert main(MATH, tmp_path / "out", ["--source", str(tmp_path / "MATH-500"), "--test", "full"]) == 1
    assert "not the full one" in capsys.readouterr().err


def test_gsm8k_in_verls_schema_and_a_prepared_set_as_source(prepare, tmp_path, gsm8k_folder, capsys):
    first = prepare(GSM8K, tmp_path / "a", "--source", gsm8k_folder, "--validation", 0)
    assert main(GSM8K, tmp_path / "b", ["--source", str(tmp_path / "a"), "--validation", "0"]) == 1
    assert "is a set we prepared" in capsys.readouterr().err
    (tmp_path / "a" / "manifest.json").unlink()
    assert prepare(GSM8K, tmp_path / "b", "--source", tmp_path / "a", "--validation", 0) == first


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "no such file or folder"), ("empty", "no test.jsonl"), ("rows.jsonl", "call the file train")],
)
def test_a_source_without_data_is_reported(tmp_path, capsys, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert main(GSM8K, tmp_path / "out", ["--source", str(tmp_path / name)]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_single_file_gives_its_split_and_says_what_was_not_checked(prepare, tmp_path, gsm8k_folder, capsys):
    got = prepare(GSM8K, tmp_path / "out", "--source", gsm8k_folder / "train.jsonl", "--validation", 3)
    assert {split: len(rows) for split, rows in got.items()} == {"train": 17, "validation": 3}
    assert "leaks between the two were not checked" in capsys.readouterr().out
