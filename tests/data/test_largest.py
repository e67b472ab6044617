"""The data set `largest`: what is asked, and what is right."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from Verl.data.schema import check_parquet
from Verl.reward.sources import LARGEST


@pytest.fixture(scope="module")
def tables(tmp_path_factory, root):
    out = tmp_path_factory.mktemp("largest")
    subprocess.run([sys.executable, str(root / "Dataset/largest/prepare.py"), "--out", str(out)], check=True)
    return {split: out / f"{split}.parquet" for split in ("train", "validation", "test")}


def numbers_of(turn: dict[str, str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", turn["content"])]


def test_the_truth_is_the_largest_and_no_question_is_asked_twice(tables):
    asked = []
    for split, path in tables.items():
        assert check_parquet(path, known_data_sources={LARGEST}) == {"train": 64, "validation": 128, "test": 512}[split]
        for row in pd.read_parquet(path).itertuples():
            *examples, message = row.prompt
            assert [turn["role"] for turn in examples] == ["user", "assistant"] * 3
            for question, answer in zip(examples[::2], examples[1::2]):
                assert int(answer["content"]) == max(numbers_of(question))
                assert set(numbers_of(question)) != set(numbers_of(message))
            numbers = numbers_of(message)
            assert len(numbers) == 4 and row.reward_model["ground_truth"] == str(max(numbers))
            asked.append(frozenset(numbers))
    assert len(asked) == len(set(asked)) and all(len(numbers) == 4 for numbers in asked)
