"""Rows, written sets and what is left of one after a kill."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from Verl.data import schema
from Verl.data.schema import DataError, check_parquet, make_row, normalise_question, require_prepared, write_split_set
from Verl.reward import sources

ROOT = Path(__file__).resolve().parents[2]


def row(split: str = "train", index: int = 0, **changes: object) -> dict:
    values = {
        "data_source": sources.GSM8K,
        "question": f"{split} {index} plus 1?",
        "prompt": f"{split} {index} plus 1? Think.",
        "ability": "math",
        "ground_truth": "1",
        "split": split,
        "index": index,
        "answer": "",
    }
    return make_row(**{**values, **changes})


def small_set() -> dict[str, list[dict]]:
    return {split: [row(split, i) for i in range(3)] for split in ("train", "validation", "test")}


def test_a_row_is_verls_row():
    got = make_row(
        data_source="s", question="q", prompt="p", ability="math", ground_truth="1", split="test", index=7,
        answer="a", level="Level 1", subject="Algebra",
    )  # fmt: skip
    assert got == {
        "data_source": "s",
        "prompt": [{"role": "user", "content": "p"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {
            "split": "test", "index": 7, "question": "q", "answer": "a", "level": "Level 1", "subject": "Algebra"
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("ground_truth", 3), ("ground_truth", " "), ("question", ""), ("prompt", None), ("index", -1), ("index", True),
     ("index", "0"), ("answer", None), ("level", 5)],
)  # fmt: skip
def test_a_row_with_a_bad_value_is_refused(field, value):
    with pytest.raises(DataError, match=repr(field)):
        row(**{field: value})


def test_examples_are_earlier_turns_of_the_conversation():
    turns = row("train", 0, prompt="3 + 4", examples=[("1 + 1", "2"), ("2 + 2", "4")])["prompt"]
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "1 + 1"), ("assistant", "2"), ("user", "2 + 2"), ("assistant", "4"), ("user", "3 + 4"),
    ]  # fmt: skip


def test_same_question_ignores_case_and_space_but_not_signs_or_numbers():
    assert normalise_question("What is\n x + 1?") == normalise_question(" what is x+1? ")
    assert normalise_question("x+1") != normalise_question("x-1")
    assert normalise_question("sort 1 23") != normalise_question("sort 12 3")


def test_a_set_is_read_back_and_described(tmp_path):
    written = write_split_set(tmp_path, small_set(), source="made up", settings={"seed": 1})
    assert require_prepared(tmp_path) == written
    assert pq.read_table(tmp_path / "train.parquet").to_pylist() == small_set()["train"]
    entry = written["splits"]["test"]
    blob = (tmp_path / "test.parquet").read_bytes()
    assert entry == {
        "file": "test.parquet", "rows": 3, "bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json", "test.parquet", "train.parquet", "validation.parquet"
    ]  # fmt: skip


def test_same_rows_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_split_set(tmp_path / name, small_set(), source="made up", settings={"seed": 1})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_smaller_set_takes_the_old_files_away(tmp_path):
    write_split_set(tmp_path, small_set(), source="made up", settings={})
    (tmp_path / "notes.parquet").write_text("not ours")
    write_split_set(tmp_path, {"test": small_set()["test"]}, source="made up", settings={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "notes.parquet", "test.parquet"]


def _leak(splits):
    splits["test"][1]["extra_info"]["question"] = "TRAIN 2 plus  1?"


def _label(splits):
    splits["test"][1]["extra_info"]["split"] = "train"


def _unknown_key(splits):
    splits["train"][1]["extra_info"]["note"] = "lost without a word if let through"


def _wrong_type(splits):
    splits["train"][1]["reward_model"]["ground_truth"] = 5


def _no_rows(splits):
    splits["test"] = []


def _same_index(splits):
    splits["train"][2]["extra_info"]["index"] = 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_leak, r"'test', row 2.*row 3 of split 'train'"), (_label, "'test', row 2: extra_info.split"),
     (_unknown_key, "'train', row 2: extra_info"), (_wrong_type, "'train'.*wrong type"),
     (_no_rows, "test.parquet: the file has no rows"), (_same_index, "train.parquet: row 3.*repeats the index")],
)  # fmt: skip
def test_a_bad_set_is_refused_and_the_old_one_stays(tmp_path, spoil, words):
    before = write_split_set(tmp_path, small_set(), source="made up", settings={})
    splits = small_set()
    spoil(splits)
    with pytest.raises(DataError, match=words):
        write_split_set(tmp_path, splits, source="made up", settings={})
    assert require_prepared(tmp_path) == before


# Kill -9 at the n-th rename: the mark, three parquet files, then the manifest.
_KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
import test_data_schema as t
rename, calls = os.replace, []
def kill_at(*names):
    if len(calls) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(names)
    rename(*names)
os.replace = kill_at
splits = t.small_set()
splits["train"] = splits["train"][:2]
t.write_split_set(sys.argv[3], splits, source="new", settings={})
"""


@pytest.mark.parametrize("renames", [1, 3, 4])
def test_a_kill_in_the_middle_leaves_nothing_that_passes_for_a_set(tmp_path, renames):
    write_split_set(tmp_path, small_set(), source="old", settings={})
    command = [sys.executable, "-c", _KILLED, str(ROOT), str(Path(__file__).parent), str(tmp_path), str(renames)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="no prepared data set"):
        require_prepared(tmp_path)
    for name in ("train", "validation", "test"):  # what lies there is old or new, never half, and no run takes it
        assert pq.read_table(tmp_path / f"{name}.parquet").num_rows in (2, 3)
        with pytest.raises(DataError, match="not written to the end.*prepare.py"):
            check_parquet(tmp_path / f"{name}.parquet", known_data_sources=[sources.GSM8K])
    write_split_set(tmp_path, small_set(), source="again", settings={})
    assert require_prepared(tmp_path)["source"] == "again"
    assert not list(tmp_path.glob(".*")), "a temporary file of the killed process is left"


def test_two_writers_take_turns(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    writer = threading.Thread(
        target=write_split_set, args=(tmp_path, small_set()), kwargs={"source": "", "settings": {}}
    )
    writer.start()
    writer.join(0.3)
    assert writer.is_alive() and not list(tmp_path.iterdir())
    os.close(handle)
    writer.join(10)
    assert require_prepared(tmp_path)


def _edit(path):
    blob = bytearray(path.read_bytes())
    blob[40] ^= 1
    path.write_bytes(bytes(blob))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda d: (d / "manifest.json").unlink(), "no prepared data set"),
     (lambda d: (d / "manifest.json").write_text("{"), "not a manifest"),
     (lambda d: (d / "manifest.json").write_text("[]"), "not a manifest"),
     (lambda d: (d / "test.parquet").unlink(), "test.parquet.*missing"),
     (lambda d: (d / "test.parquet").write_bytes(b""), "test.parquet.*differs"),
     (lambda d: _edit(d / "test.parquet"), "test.parquet.*differs")],
)  # fmt: skip
def test_require_prepared_names_the_command(tmp_path, spoil, words):
    folder = tmp_path / "gsm8k" / "data"
    write_split_set(folder, small_set(), source="made up", settings={})
    spoil(folder)
    with pytest.raises(DataError, match=words) as caught:
        require_prepared(folder)
    assert "prepare.py --out" in str(caught.value)
    assert all(script.parent.name in str(caught.value) for script in (ROOT / "Dataset").glob("*/prepare.py"))
    (folder.parent / "prepare.py").touch()
    with pytest.raises(DataError) as caught:
        require_prepared(folder)
    assert f"run: python {folder.parent / 'prepare.py'} --out {folder}" in str(caught.value)


def test_a_file_that_its_manifest_does_not_describe_is_refused(tmp_path):
    write_split_set(tmp_path, small_set(), source="made up", settings={})
    pq.write_table(pq.read_table(tmp_path / "test.parquet").slice(0, 2), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="test.parquet.*differs"):
        check_parquet(tmp_path / "test.parquet", known_data_sources=[sources.GSM8K])
    (tmp_path / "test.parquet").rename(tmp_path / "mine.parquet")  # a file of one's own is no part of the set
    assert check_parquet(tmp_path / "mine.parquet", known_data_sources=[sources.GSM8K]) == 2


def test_another_schema_version_is_refused(tmp_path):
    manifest = write_split_set(tmp_path, small_set(), source="made up", settings={})
    manifest["schema_version"] = schema.SCHEMA_VERSION + 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="schema version"):
        require_prepared(tmp_path)
