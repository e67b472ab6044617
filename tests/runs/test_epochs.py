"""A run whose epochs are over before its steps: it ends as one that has done what was declared, and says why."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def test_epochs_that_end_early_end_a_whole_run(mini):
    """48 questions are three steps of 16; 16 of them have prompts that are too long, which only the data loader sees."""
    train = pd.read_parquet(mini.folder / "data/train.parquet")
    long = [row.name % 3 == 0 for _, row in train.iterrows()]
    train["prompt"] = [
        [{"role": "user", "content": prompt[0]["content"] + "1+" * 12 * too_long}]
        for prompt, too_long in zip(train["prompt"], long, strict=True)
    ]
    path = mini.folder / "long.parquet"
    train.to_parquet(path)
    settings = [f"data.train_files={path}", "trainer.total_epochs=1", "trainer.total_training_steps=3"]
    result = mini.hosted("grpo", "epochs", *settings)
    assert result.status == 0, result.output
    assert [record["step"] for record in result.records] == [0, 1, 2]
    assert "eval/test/pass@1" in result.records[-1] and (result.folder / "checkpoints/global_step_2").is_dir()
    said = json.loads((result.folder / "run.json").read_text())
    assert said["status"] == "finished" and "epoch" in result.output
    again = mini.hosted("grpo", "epochs", *settings)
    assert again.status == 0 and "finished already" in again.output
