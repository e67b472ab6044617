"""A trained checkpoint and its exported folder are one model: weights, logits and greedy answers are equal to the bit."""

import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from Verl.adapter.load_checkpoint import load_checkpoint
from Verl.trainer.main_export import main

pytestmark = pytest.mark.slow


def test_exported_model_answers_as_the_checkpoint(mini, base_line, tmp_path, capsys):
    out, checkpoint = tmp_path / "model", base_line.folder / "checkpoints/global_step_8"
    result = str(base_line.folder.parent)
    assert main(["--model", base_line.folder.name, "--result", result, "--step", "8", "--out", str(out)]) == 0
    trained, exported = load_checkpoint(checkpoint), AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    state = exported.state_dict()
    for name, weight in base_line.weights(8).items():
        assert torch.equal(state[name], weight), name
    assert not torch.equal(state["model.embed_tokens.weight"], base_line.weights(10)["model.embed_tokens.weight"])
    for row in pq.read_table(mini.folder / "data/test.parquet").to_pylist():
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            assert torch.equal(trained(**prompt).logits, exported(**prompt).logits)
        answers = [model.generate(**prompt, do_sample=False, max_new_tokens=12) for model in (trained, exported)]
        assert torch.equal(*answers)
    assert exported.generation_config.eos_token_id == trained.generation_config.eos_token_id

    card = (out / "README.md").read_text()
    assert f"# {base_line.folder.name}, step 8" in card and "| arm | `base` |" in card and "verl 0.9.1" in card
    assert "data/train.parquet`, 48 questions" in card
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace('"..."', '"1+2-3="')
    done = subprocess.run([sys.executable, "-c", example], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0 and "1+2-3=" in done.stdout, done.stderr

    # Steps 6, 8 and 10 are saved, and validation is asked at 0, 5 and 10.
    assert main(["--model", str(base_line.folder), "--best", "--out", str(tmp_path / "best")]) == 0
    assert "step 10, the best validation Pass@1" in capsys.readouterr().out
