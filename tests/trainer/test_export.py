"""Export: which checkpoint is meant, a folder that is whole or not there, a card that says what it is, one sentence else."""

import json
import os
import subprocess

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from Verl.base_models.tokenizer import build_tokenizer
from Verl.trainer import export, main_export
from Verl.trainer.main_export import main

RUN = "grpo_0032_8_tiny_arith_seed0"
VALIDATED = {0: 0.25, 5: 0.9, 10: 0.5, 20: 0.75, 30: 0.75}


def checkpoint(folder, seed):
    """As verl's manager leaves one: a state dict, and config and tokenizer beside it."""
    tokenizer = build_tokenizer(64)
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    home = folder / "actor" / "huggingface"
    tokenizer.save_pretrained(home)
    model.config.save_pretrained(home)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(home)
    torch.save(model.state_dict(), folder / "actor" / "model_world_size_1_rank_0.pt")
    (folder / "bandit_state.json").write_text("{}")
    return model.eval()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run with the checkpoints of steps 10, 20 and 30, and one beside it that was never saved."""
    result = tmp_path_factory.mktemp("result")
    folder = result / RUN
    for step in (10, 20, 30):
        checkpoint(folder / f"checkpoints/global_step_{step}", step)
    rows = [{"step": step, "eval/validation/pass@1": score, "eval/test/pass@1": 1 - score, "eval/test/questions": 512.0,
             "eval/test/temperature": 1.0} for step, score in VALIDATED.items()]  # fmt: skip
    lines = [json.dumps(row) for row in [*rows, {"step": 31, "eval/validation/pass@1": "nan"}]]
    (result / f"{RUN}.jsonl").write_text("\n".join([*lines, '{"step": 32, "eval/va']))
    record = {"run": RUN, "arm": "grpo_0032_8", "data": "arith", "seed": 0, "command": "bash `x` | y.sh", "commit": "abc",
              "versions": {"verl": "0.9.1"}, "questions": {"train": 512}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    data = {"train_files": "a/train.parquet", "apply_chat_template_kwargs": {"date_string": "26 Jul 2024"}}
    config = {"data": data, "actor_rollout_ref": {"model": {"path": "Qwen/Qwen2.5-0.5B"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (result / "empty_seed0").mkdir()
    (result / "empty_seed0" / "run.json").write_text("{}")
    return result


@pytest.fixture
def run_export(result, tmp_path, capsys):
    def run(model=RUN, *more, out=tmp_path / "out"):
        status = main(["--model", str(model), "--result", str(result), "--out", str(out), *map(str, more)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


@pytest.mark.parametrize(
    ("asked", "step", "why"),
    [
        ({}, 30, "the last of the saved steps 10, 20, 30"),
        ({"step": 20}, 20, "one of"),
        ({"best": True}, 20, "0.7500, of the saved steps (10: 0.5000, 30: 0.7500); step 5 had 0.9000 and is not saved"),
    ],
)
def test_which_checkpoint_is_meant(result, asked, step, why):
    for model in (RUN, result / RUN, result / RUN / "checkpoints"):
        chosen = export.choose(str(model), result, **asked)
        assert chosen.checkpoint == result / RUN / f"checkpoints/global_step_{step}" and chosen.step == step
        assert chosen.run == result / RUN and why in chosen.why


def test_a_checkpoint_knows_its_run_and_one_that_was_moved_has_none(result, tmp_path):
    place = result / RUN / "checkpoints/global_step_10"
    for folder in (place, place / "actor"):
        chosen = export.choose(str(folder), result)
        assert (chosen.checkpoint, chosen.run, chosen.scores[10]["eval/validation/pass@1"]) == (place, result / RUN, 0.5)
    alone = tmp_path / "x" / "y" / "mine"
    checkpoint(alone, 0)
    assert export.choose(str(alone), result).run is None and export.choose(str(alone), result).step is None


def test_a_run_whose_checkpoints_are_on_another_disk(result, tmp_path):
    elsewhere, run = tmp_path / "disk", tmp_path / "result" / "far_seed0"
    checkpoint(elsewhere / "global_step_4", 0)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"trainer": {"default_local_dir": str(elsewhere)}}))
    assert export.choose("far_seed0", run.parent).checkpoint == elsewhere / "global_step_4"


def test_best_says_which_saved_steps_were_not_evaluated(result, tmp_path):
    for step in (4, 6):
        checkpoint(tmp_path / f"r_seed0/checkpoints/global_step_{step}", step)
    (tmp_path / "r_seed0.jsonl").write_text('{"step": 6, "eval/validation/pass@1": 0.5}\n')
    chosen = export.choose("r_seed0", tmp_path, best=True)
    assert chosen.step == 6 and "not evaluated on validation: 4" in chosen.why


def test_exported_folder_answers_as_the_checkpoint_to_the_bit(run_export, result, tmp_path):
    status, said = run_export(RUN, "--best")
    assert status == 0 and said.count("\n") == 1 and "step 20, the best validation Pass@1" in said
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} >= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "README.md",
    }  # fmt: skip
    assert not any(path.suffix in (".pt", ".bin") for path in out.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    state = torch.load(result / RUN / "checkpoints/global_step_20/actor/model_world_size_1_rank_0.pt", weights_only=True)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in state.items())
    trained = Qwen2ForCausalLM(model.config)
    trained.load_state_dict(state)
    trained.generation_config = model.generation_config
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2="}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answers = [one.eval().generate(**prompt, do_sample=False, max_new_tokens=12).tolist() for one in (model, trained)]
    assert answers[0] == answers[1]


def test_the_card_says_what_it_is(run_export, tmp_path):
    assert run_export(RUN, "--step", 20)[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    head, text = card.split("---\n")[1], card.split("---\n", 2)[2]
    assert yaml.safe_load(head)["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert f"# {RUN}, step 20" in text and "| arm | `grpo_0032_8` |" in text and "| commit | `abc` |" in text
    assert "| command | `bash 'x' \\| y.sh` |" in text, "nothing of a command ends its cell"
    assert "| train data | `a/train.parquet`, 512 questions |" in text
    assert "| test pass@1 | 0.7500 | 0.2500 |" in text and "512 questions of test, sampled at temperature 1" in text
    assert 'return_dict=True, date_string="26 Jul 2024")' in text
    assert "| weights | float32, " in text


def test_a_checkpoint_without_its_run_has_a_card_too(run_export, tmp_path):
    checkpoint(tmp_path / "alone", 0)
    assert run_export(tmp_path / "alone")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "away from its run" in card and "base_model" not in card


@pytest.mark.parametrize(
    ("model", "more", "sentence"),
    [
        ("grpo_0032_8_tiny_arith_seed9", [], f"no run of that name in {{result}}; did you mean {RUN}?"),
        ("Qwen/Qwen2.5-0.5B", [], "no such folder, and no run of that name"),
        ("empty_seed0", [], "has no checkpoint"),
        (RUN, ["--step", "15"], "--step 15: the run has no checkpoint of that step; saved are 10, 20, 30"),
        (RUN, ["--step", "10", "--best"], "exclude each other"),
        ("{result}/" + RUN + "/checkpoints/global_step_10", ["--best"], "--best chooses among a run's checkpoints"),
        ("{result}/" + RUN + ".jsonl", [], "is a file"),
        ("{tmp}", [], "neither a model nor a checkpoint"),
        ("{result}/" + RUN + "/checkpoints/global_step_10/actor/huggingface", [], "no weights"),
        (RUN, ["--push", "no such/name/"], "--push no such/name/"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(run_export, result, tmp_path, model, more, sentence):
    places = {"result": result, "tmp": tmp_path}
    status, said = run_export(model.format(**places), *more)
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    assert sentence.format(**places) in said
    assert not list(tmp_path.iterdir())


def test_a_model_folder_is_no_checkpoint(run_export, tmp_path):
    assert run_export(RUN, out=tmp_path / "model")[0] == 0
    status, said = run_export(tmp_path / "model")
    assert status == 2 and "is a model folder already" in said and not (tmp_path / "out").exists()


def test_no_validation_score_is_one_sentence(run_export, tmp_path):
    checkpoint(tmp_path / "r_seed0/checkpoints/global_step_4", 0)
    status, said = run_export(tmp_path / "r_seed0", "--best")
    assert status == 2 and "none of the saved steps 4 of" in said and "evaluation.val_freq" in said


def test_what_is_in_the_way_stays(run_export, tmp_path):
    (tmp_path / "out").mkdir()
    assert run_export()[0] == 0, "an empty folder is taken"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    status, said = run_export(RUN, "--step", 10)
    assert status == 2 and "exists and is not empty" in said and said.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        status, said = run_export(RUN, out=out)
        assert status == 2 and said.count("\n") == 1 and str(out) in said


def test_an_export_that_breaks_off_leaves_no_folder(run_export, tmp_path, monkeypatch):
    def interrupted(folder, chosen):
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(main_export, "_fill", interrupted)
        status, said = run_export()
    assert status == 130 and "nothing was exported" in said and not list(tmp_path.iterdir())
    # A kill can't clean up: the next export does.
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("")
    assert run_export()[0] == 0 and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "half").exists()


class Hub:
    """Stands in for the Hub's client."""

    calls: list = []
    fails = None

    def whoami(self):
        if self.fails == "login":
            raise ValueError("Token is required,\nbut none was found")

    def create_repo(self, name, **options):
        self.calls.append((name, options))
        return type("Url", (str,), {"repo_id": f"me/{name}"})(f"https://hub/me/{name}")

    def upload_folder(self, **options):
        if self.fails == "upload":
            raise ConnectionError("reset")
        self.calls.append(sorted(os.listdir(options["folder_path"])))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("Verl.data.hub._answers", lambda url: True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    Hub.calls, Hub.fails = [], None
    return Hub


def test_push_uploads_the_folder_to_a_private_repository(run_export, hub, tmp_path):
    status, said = run_export(RUN, "--push", "mine")
    assert status == 0 and "pushed to https://hub/me/mine" in said
    assert hub.calls == [("mine", {"private": True, "exist_ok": True}), sorted(os.listdir(tmp_path / "out"))]


def test_push_without_a_login_writes_nothing(run_export, hub, tmp_path):
    hub.fails = "login"
    status, said = run_export(RUN, "--push", "mine")
    assert status == 2 and said.count("\n") == 1 and "hf auth login" in said and not list(tmp_path.iterdir())


def test_a_push_that_breaks_off_leaves_the_folder(run_export, hub, tmp_path):
    hub.fails = "upload"
    status, said = run_export(RUN, "--push", "mine")
    assert status == 2 and "is written all the same" in said and (tmp_path / "out" / "README.md").is_file()


def test_push_without_a_network_is_one_sentence(run_export, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("Verl.data.hub._answers", lambda url: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    status, said = run_export(RUN, "--push", "mine")
    assert status == 2 and said.count("\n") == 1 and "can't be reached" in said and not list(tmp_path.iterdir())


def test_script_works_from_anywhere(root, result, tmp_path):
    command = ["bash", str(root / "Running-Bash/export.sh"), "--model", "../none", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "--model ../none: no such folder" in done.stderr, done.stderr
