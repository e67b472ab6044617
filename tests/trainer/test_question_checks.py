"""What a run's splits must not share is refused at launch; what may be there twice is counted and named."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from Verl.data.schema import make_row
from Verl.errors import UserError
from Verl.trainer.data_checks import check_questions, copies_in_words, count_copies


def row(text, index, split="train", source="made/up", prompt="{} Answer:"):
    return make_row(data_source=source, question=text, prompt=prompt.format(text), ability="x", ground_truth="1",
                    split=split, index=index, answer="1")  # fmt: skip


def questions(words, first=0, **options):
    return [row(word, first + place, **options) for place, word in enumerate(words.split())]


@pytest.fixture
def splits(tmp_path):
    """Writes files of the three splits (a name that begins with one of them) and gives their config."""

    def make(**files):
        keys = {"train": [], "val": [], "test": []}
        defaults = {"train": questions("a b c"), "val": questions("d"), "test": questions("e f")}
        given = {name.rstrip("0123456789") for name in files}
        for name, rows in {**{name: defaults[name] for name in {*defaults} - given}, **files}.items():
            path = tmp_path / f"{name}.parquet"
            pq.write_table(pa.Table.from_pylist(rows), path)
            keys[name.rstrip("0123456789")].append(str(path))
        return OmegaConf.create({"data": {f"{key}_files": paths for key, paths in keys.items()}})

    return make


def test_apart_is_fine(splits):
    config = splits()
    check_questions(config)
    assert count_copies(config) == {}


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_training_on_the_file_itself_is_refused(splits, tmp_path, held_out):
    config = splits()
    path = config.data[f"{held_out}_files"][0]
    shutil.copy(path, tmp_path / "copy.parquet")
    for name in (path, str(tmp_path / "copy.parquet")):
        config.data.train_files = [*splits().data.train_files, name]
        with pytest.raises(UserError, match=rf"data.train_files=.* is the file of data.{held_out}_files"):
            check_questions(config)


@pytest.mark.parametrize("held_out", ["test", "val"])
@pytest.mark.parametrize(
    "again",
    [
        row("C", 7, source="another"),  # letter case, index and source do not make a question another one
        row("c", 7, prompt="{} Put the answer into a box."),  # nor does the instruction
    ],
)
def test_training_on_held_out_questions_is_refused(splits, held_out, again):
    config = splits(**{held_out: [row("z", 3), again]})
    with pytest.raises(
        UserError, match=rf"data.train_files: 1 of 3 .* data.{held_out}_files.*train.parquet row 3.*row 2"
    ):
        check_questions(config)


def test_a_sentence_that_all_rows_share_is_no_question(splits):
    def same(word, index):
        one = row("What is this?", index)
        one["prompt"][0]["content"] = f"{word}: what is this?"
        return one

    config = splits(train=[same("cat", 0), same("dog", 1)], test=[same("cow", 0), same("hen", 1)])
    check_questions(config)


def test_one_identity_for_two_questions_is_refused(splits):
    with pytest.raises(
        UserError, match=r"data.train_files: .*train1.parquet row 1 and .*train2.parquet row 2 .*question 0 of"
    ):
        check_questions(splits(train1=questions("a b"), train2=questions("g", first=5) + questions("i")))
    check_questions(splits(train1=questions("a b"), train2=questions("g h", first=2)))
    check_questions(splits(train1=questions("a b"), train2=questions("g h", source="another/source")))
    with pytest.raises(UserError, match="data.test_files"):
        check_questions(splits(test1=questions("a1 b1"), test2=questions("a2 b2")))


def test_copies_are_counted_and_named(splits):
    config = splits(train=questions("a b A b c"), val=questions("d e", first=9))
    check_questions(config)
    found = count_copies(config)
    assert found["train"]["questions"] == 2 and found["train"]["of"] == 5
    assert found["train"]["first"].endswith("row 3") and found["train"]["same_as"].endswith("row 1")
    assert found["validation in test"]["questions"] == 1 and "test" not in found
    assert len(copies_in_words(found)) == 2 and "2 of 5" in copies_in_words(found)[0]


def test_a_file_that_was_exchanged_is_read_again(splits, tmp_path):
    """Also under the old size and time stamp."""
    config = splits(test=questions("e f"))
    check_questions(config)
    before = os.stat(tmp_path / "test.parquet")
    splits(test=questions("e a"))
    os.utime(tmp_path / "test.parquet", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(tmp_path / "test.parquet").st_size == before.st_size
    with pytest.raises(UserError, match="1 of 3"):
        check_questions(config)
