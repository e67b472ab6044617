"""No run and no evaluation takes a set whose prompt has been changed in the code since it was prepared."""

import json

import pytest

from Verl.data import gsm8k, prompts
from Verl.data.prepare import main as prepare_data
from Verl.data.row_checks import DataError
from Verl.evaluation.queries import read_questions
from Verl.trainer import launch


@pytest.fixture
def files(tmp_path):
    published = tmp_path / "gsm8k"
    published.mkdir()
    for split, count in (("train", 20), ("test", 5)):
        rows = [{"question": f"{split}: {i} and {i}?", "answer": f"Add.\n#### {2 * i}"} for i in range(count)]
        (published / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare_data(gsm8k.GSM8K, tmp_path / "data", ["--source", str(published), "--validation", "4"]) == 0
    return tmp_path / "data"


@pytest.fixture
def settings(files, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    names = {"train_files": "train", "val_files": "validation", "test_files": "test"}
    return [
        *(f"data.{key}={files}/{split}.parquet" for key, split in names.items()), "data.train_batch_size=8",
        f"actor_rollout_ref.model.path={tmp_path}/model", f"run.result_dir={tmp_path}/result", "trainer.device=cpu",
        "run.model=mini", "run.data=gsm",
    ]  # fmt: skip


def test_a_run_is_refused_in_one_sentence(settings, files, tmp_path, monkeypatch, capsys):
    assert launch.prepare("grpo", settings, [])[1] == []
    monkeypatch.setattr(prompts, "GSM8K_INSTRUCTION", " Answer at once.")
    with pytest.raises(SystemExit) as ended:
        launch.main("grpo", settings)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and not (tmp_path / "result").exists()
    assert error.startswith(f"error: data.train_files: {files}: the prompt has changed in the code")
    assert f"run: python Dataset/gsm8k/prepare.py --out {files} --validation 4" in error


def test_a_dry_run_says_it_and_shows_the_config(settings, monkeypatch, capsys):
    monkeypatch.setattr(prompts, "GSM8K_INSTRUCTION", " Answer at once.")
    _, missing = launch.prepare("grpo", settings, [])
    assert len(missing) == 1 and "the prompt has changed" in missing[0]


def test_an_evaluation_is_refused_too(files, monkeypatch):
    assert len(read_questions(files / "test.parquet", None)) == 5
    monkeypatch.setattr(prompts, "GSM8K_INSTRUCTION", " Answer at once.")
    with pytest.raises(DataError, match="the prompt has changed"):
        read_questions(files / "test.parquet", None)
