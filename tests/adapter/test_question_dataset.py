"""Data as verl reads it, but from the file and not from a memory of it."""

import os

import pytest
from omegaconf import OmegaConf

from Verl.data.schema import make_row, write_split_set


@pytest.fixture(scope="module")
def tokenizer():
    from Verl.base_models.tokenizer import build_tokenizer

    return build_tokenizer(64)


def write(folder, numbers):
    rows = [
        make_row(data_source="reasoning_gym/chain_sum", question=text, prompt=text, ability="x", ground_truth="1",
                 split="train", index=place, answer="1")
        for place, text in enumerate(numbers)
    ]  # fmt: skip
    write_split_set(folder, {"train": rows}, source="test", settings={})
    return folder / "train.parquet"


def config(**settings):
    return OmegaConf.create({"prompt_key": "prompt", "max_prompt_length": 9, "filter_overlong_prompts": True,
                             "filter_overlong_prompts_workers": None, "return_raw_chat": True, **settings})  # fmt: skip


NUMBERS = ["1+1=", "2+2=", "123456789+123456789=", "3+3=", "4+4=", "5+5="]


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_samples": 3}, {"max_samples": 3, "shuffle": True, "seed": 5}, {"filter_overlong_prompts": False}],
)
def test_the_rows_are_those_of_verls_own_class(tmp_path, tokenizer, settings, monkeypatch):
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from Verl.adapter.question_dataset import QuestionDataset

    path, settings = str(write(tmp_path, NUMBERS)), dict(settings)
    most = settings.pop("max_samples", -1)
    classes = (QuestionDataset, RLHFDataset)
    ours, theirs = (cls([path, path], tokenizer, config(**settings), max_samples=most) for cls in classes)
    assert len(ours) == len(theirs) and ours.left_out == (len(NUMBERS) * 2 if most < 0 else most) - len(ours)
    for row in range(len(ours)):
        one, other = ours[row], theirs[row]
        assert one.pop("dummy_tensor").equal(other.pop("dummy_tensor")) and one == other
    if not settings and most < 0:
        assert ours.left_out == 2


def test_a_file_that_was_exchanged_under_its_time_stamp_is_read(tmp_path, tokenizer):
    from Verl.adapter.question_dataset import QuestionDataset

    seen = []
    for text in ("1+1=", "2+2="):
        path = write(tmp_path, [text])
        os.utime(path, ns=(10**18, 10**18))
        seen.append(QuestionDataset(str(path), tokenizer, config())[0]["raw_prompt"][0]["content"])
    assert seen == ["1+1=", "2+2="]
