"""The arithmetic data set: splits that share nothing, answers that are right, the same bytes twice."""

import itertools
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from Verl import REPO_ROOT
from Verl.data import arithmetic
from Verl.data.schema import check_parquet, require_prepared
from Verl.reward.sources import CHAIN_SUM

SMALL = {"train": 40, "validation": 10, "test": 20}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_question_is_in_two_splits_or_twice_in_one(seed):
    splits = arithmetic.draw_splits(seed)
    texts = [question.text for questions in splits.values() for question in questions]
    assert {split: len(questions) for split, questions in splits.items()} == arithmetic.SPLIT_SIZES
    assert len(texts) == len(set(texts))


def test_the_warm_start_never_sees_a_question_of_any_seed():
    shown = {question.text for question in itertools.islice(arithmetic.stream("warm_start", 0), 20_000)}
    asked = {q.text for seed in range(3) for questions in arithmetic.draw_splits(seed).values() for q in questions}
    assert len(shown) > 5_000
    assert not shown & asked


def test_neighbouring_seeds_give_different_data():
    """Item i is drawn from seed + i, so seeds 0 and 1 passed on as they are would share all but one question."""
    first, second = ({q.text for q in arithmetic.draw_splits(seed)["train"]} for seed in (0, 1))
    assert len(first & second) < len(first) / 4  # the same by chance: there are only 2,000 of three terms


def test_answers_and_form():
    for question in arithmetic.draw_splits(3, SMALL)["train"]:
        assert re.fullmatch(r"\d([+-]\d){2,3}=", question.text)
        terms = re.findall(r"[+-]?\d", question.text)
        assert len(terms) == question.terms
        assert sum(map(int, terms)) == int(question.answer)


def test_a_larger_train_set_keeps_test_and_validation():
    small, large = (arithmetic.draw_splits(0, {**SMALL, "train": train}) for train in (40, 400))
    assert small["test"] == large["test"]
    assert small["validation"] == large["validation"]
    assert small["train"] == large["train"][:40]


def test_prepared_files_are_whole_and_the_same_twice(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        assert arithmetic.prepare(folder, seed=0, sizes=SMALL) == SMALL
        require_prepared(folder)
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["manifest.json", "test.parquet", "train.parquet", "validation.parquet"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    for split, size in SMALL.items():
        assert check_parquet(folders[0] / f"{split}.parquet", known_data_sources={CHAIN_SUM}) == size
    row = pq.read_table(folders[0] / "test.parquet").to_pylist()[3]
    assert row["prompt"] == [{"role": "user", "content": row["extra_info"]["question"]}]
    assert (row["extra_info"]["split"], row["extra_info"]["index"]) == ("test", 3)


@pytest.mark.parametrize(
    ("seed", "sizes", "message"),
    [
        (-1, SMALL, "seed must be >= 0"),
        (0, {"train": 0}, "at least one question"),
        (0, {"dev": 5}, "unknown splits"),
    ],
)
def test_bad_arguments_are_named(seed, sizes, message):
    with pytest.raises(ValueError, match=message):
        arithmetic.draw_splits(seed, sizes)


def test_the_command(tmp_path):
    script = REPO_ROOT / "Dataset" / "arithmetic" / "prepare.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "data"), "--seed", "2", "--train-size", "30"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "train: 30 rows written" in done.stdout
    assert require_prepared(tmp_path / "data")["splits"]["train"]["rows"] == 30
    refused = subprocess.run([*command, "--test-size", "0"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "at least one question" in refused.stderr
    assert "Traceback" not in refused.stderr
