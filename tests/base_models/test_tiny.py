"""The tiny base model: a loadable folder, the same bytes twice, and (slow) the start that the study needs."""

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from Verl.base_models import tiny, tiny_build, tiny_recipe
from Verl.base_models.demonstrations import demonstrations
from Verl.base_models.publish import read_record
from Verl.base_models.tokenizer import build_tokenizer
from Verl.base_models.warm_start import pass_at_1, sample_responses, warm_start
from Verl.data.arithmetic import draw_splits

MINI = tiny.Recipe(steps=5, batch_size=8, hidden_size=32, intermediate_size=64)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mini"
    said = []
    tiny.build(folder, MINI, said.append)
    return folder, said


def test_the_folder_loads_like_any_other(mini):
    folder, said = mini
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen2"
    assert model.config.tie_word_embeddings
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer)
    for place in (model.config, model.generation_config):
        assert (place.pad_token_id, place.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    (response,) = sample_responses(model, tokenizer, ["1+2+3="], max_new_tokens=4, seed=0)
    assert len(response) <= 4
    assert "step 5/5" in said[0]


def test_the_record_tells_recipe_versions_and_start(mini):
    record = read_record(mini[0])
    assert record["recipe"]["seed"] == 0
    assert set(record["versions"]) == {"torch", "transformers", "tokenizers", "reasoning-gym"}
    assert 0 <= record["validation_pass_at_1"] <= 1
    assert "model.safetensors" in record["files"]


def test_asking_whether_it_is_there_imports_nothing_heavy(mini):
    """Every run asks first, and torch with transformers takes five seconds to import."""
    ask = (
        "import sys; from pathlib import Path; from Verl.base_models import smollm, tiny\n"
        "recipe = tiny.Recipe(steps=5, batch_size=8, hidden_size=32, intermediate_size=64)\n"
        "tiny.build(Path(sys.argv[1]), recipe, print)\n"
        "print(sorted({'torch', 'transformers', 'reasoning_gym'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", ask, str(mini[0])], capture_output=True, text=True, check=True).stdout
    assert "already complete" in said
    assert said.splitlines()[-1] == "[]"


def test_same_seed_same_bytes_other_seed_other_bytes(mini, tmp_path):
    torch.manual_seed(99)  # what the process drew before must not matter
    torch.rand(3)
    state = torch.get_rng_state()
    tiny.build(tmp_path / "again", MINI)
    assert torch.equal(torch.get_rng_state(), state)
    tiny.build(tmp_path / "other", replace(MINI, seed=1))
    folders = mini[0], tmp_path / "again", tmp_path / "other"
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1] != weights[2]
    assert read_record(tmp_path / "again") == read_record(mini[0])


def test_a_complete_model_is_not_built_again(mini):
    before = (mini[0] / "model.safetensors").stat().st_mtime_ns
    said = []
    tiny.build(mini[0], MINI, said.append)
    assert (mini[0] / "model.safetensors").stat().st_mtime_ns == before
    assert len(said) == 1
    assert "already complete" in said[0]


def test_the_loss_falls_on_responses_only():
    """An untrained model's loss is near log(vocabulary); fifteen steps on one batch's worth bring it down."""
    tokenizer, losses = build_tokenizer(128), []
    torch.manual_seed(0)
    model = tiny_build.new_model(MINI, tokenizer)
    examples = itertools.cycle(list(itertools.islice(demonstrations(0, 0.3), 16)))
    warm_start(model, tokenizer, examples, steps=15, batch_size=16, peak_lr=1e-2, report=lambda _, x: losses.append(x))
    assert losses[-1] < losses[0] - 0.5


def test_demonstrations_that_run_out_are_an_error():
    tokenizer = build_tokenizer(128)
    with pytest.raises(ValueError, match="ran out at step 1 of 2"):
        warm_start(tiny_build.new_model(MINI, tokenizer), tokenizer, iter([]), steps=2, batch_size=4, peak_lr=1e-3)


def test_bad_command_lines_are_one_sentence(tmp_path, capsys):
    assert tiny.main(["--out", str(tmp_path / "x"), "--seed", "-1"]) == 2
    (tmp_path / "notes.txt").write_text("mine")
    assert tiny.main(["--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.slow
def test_full_warm_start_gives_the_start_the_study_needs(root):
    """The model that runs are started from, built here where it is not there yet: a minute and a half of two cores.
    Step-by-step answers must be sampled often enough to be found."""
    folder = root / ".cache/models/tiny"
    record = tiny.build(folder, tiny.Recipe())
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = draw_splits(0)["test"]
    assert 0.25 <= pass_at_1(model, tokenizer, questions, max_new_tokens=tiny_recipe.MAX_RESPONSE_TOKENS, seed=0) <= 0.55
    texts = [question.text for question in questions]
    responses = sample_responses(model, tokenizer, texts, max_new_tokens=tiny_recipe.MAX_RESPONSE_TOKENS, seed=0)
    assert 0.2 <= sum("=" in response for response in responses) / len(responses) <= 0.4
    assert 0.25 <= record["validation_pass_at_1"] <= 0.55
