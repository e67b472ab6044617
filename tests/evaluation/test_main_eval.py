"""The command: a real (tiny, random) model from end to end, and one sentence for whatever can't be done."""

import json
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.evaluation import backends, run
from Verl.trainer import preparation
from Verl.trainer.main_eval import main, parse


@pytest.fixture
def arguments(test_set, tiny_model, tmp_path):
    def build(**changes):
        values = {"model": tiny_model, "data": test_set, "out": tmp_path / "out", "device": "cpu", **changes}
        values.setdefault("max_response_length", 8)
        return [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]

    return build


def test_tiny_model_from_end_to_end(arguments, tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*arguments(samples=2, limit=6), "--greedy"]) == 0
    assert "maj@2, the majority of 2 samples at temperature 1.0\n" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "responses.parquet").to_pylist()
    assert (
        len(rows) == 18
        and json.loads((tmp_path / "out" / "evaluation.json").read_text())["settings"]["device"] == "cpu"
    )
    # A greedy answer is what the model itself finds likeliest, token by token.
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = run.load_tokenizer(run.find_model(str(tiny_model)))
    row = next(row for row in rows if row["greedy"])
    question = run.read_questions(parse(arguments()).data, 6)[0]
    prompt = tokenizer.apply_chat_template(question.messages, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *row["tokens"]]])).logits[0, len(prompt) - 1 : -1]
    assert logits.argmax(dim=1).tolist() == row["tokens"]
    picked = logits.log_softmax(dim=1)[range(len(row["tokens"])), row["tokens"]]
    assert row["log_prob"] == pytest.approx(float(picked.sum()), abs=1e-4)


def test_same_seed_same_answers_other_seed_others(arguments, tmp_path):
    texts = []
    for out, seed, batch in (("a", 0, 64), ("b", 0, 3), ("c", 1, 64)):
        assert main(arguments(out=tmp_path / out, seed=seed, batch=batch)) == 0
        texts.append(pq.read_table(tmp_path / out / "responses.parquet")["text"].to_pylist())
    assert texts[0] == texts[1], "what a response says does not depend on its neighbours"
    assert texts[0] != texts[2]


def bad_row(path):
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3]["reward_model"]["ground_truth"] = "seven"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "/no/such/model"}, "no such folder"),
        ({"model": "{data}"}, "is a file"),
        ({"model": "{tmp}"}, "no config.json"),
        ({"data": "/no/such.parquet"}, "no such file"),
        ({"samples": 0}, "--samples 0"),
        ({"temperature": 0}, "greedy decoding is --greedy"),
        ({"limit": 0}, "--limit 0"),
        ({"batch": 0}, "--batch 0"),
        ({"max_prompt_length": 2}, "all 20 prompts are longer"),
        ({"against": "{tmp}"}, "holds no finished evaluation"),
        ({"out": "{data}"}, "is a file"),
        ({"out": "{data}/out"}, "can't be written to"),
        ({"device": "cuda"}, "--device cuda"),
    ],
)
def test_bad_input_is_one_sentence_before_the_model_loads(
    arguments, test_set, tmp_path, capsys, monkeypatch, changes, sentence
):
    monkeypatch.setattr(backends, "CPUBackend", lambda *_: pytest.fail("the model was loaded"))
    places = {"data": test_set, "tmp": tmp_path}
    changes = {key: str(value).format(**places) for key, value in changes.items()}
    assert main(arguments(**changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_unreadable_true_answer_is_named_with_its_row(arguments, test_set, tmp_path, capsys):
    copy = tmp_path / "broken.parquet"
    copy.write_bytes(test_set.read_bytes())
    bad_row(copy)
    assert main(arguments(data=copy)) == 2
    assert "row 4, field 'reward_model.ground_truth' is 'seven', which the scorer" in capsys.readouterr().err


def test_interruption_says_that_it_goes_on(arguments, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "evaluate", interrupted)
    assert main(arguments()) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_values_for_the_chat_template_reach_the_prompt(tiny_model):
    settings = parse(["--model", "m", "--data", "d", "--out", "o", "--template", "date_string=1=2", "--template", "b="])
    assert settings.template == {"date_string": "1=2", "b": ""}
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--data", "d", "--out", "o", "--template", "26 Jul 2024"])
    tokenizer = run.load_tokenizer(run.find_model(str(tiny_model)))
    tokenizer.chat_template = "{{ date_string | default('9') }}{{ messages[0]['content'] }}"
    question = run.EvaluationQuery("s", 0, [{"role": "user", "content": "1+1="}], "2")
    for template, text in (({}, "91+1="), ({"date_string": "7"}, "71+1=")):
        ((_, ids),), _ = run.encode([question], tokenizer, 20, template)
        assert tokenizer.decode(ids) == text


def test_a_checkpoint_is_prompted_as_it_was_trained(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "global_step_3" / "actor"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("data: {apply_chat_template_kwargs: {date_string: 26 Jul 2024}}\n")
    for place in (checkpoint, checkpoint.parent):
        source = run.ModelSource(str(place), "checkpoint", "", "")
        assert run.template_of_run(source) == {"date_string": "26 Jul 2024"}
    assert run.template_of_run(run.ModelSource(str(checkpoint), "folder", "", "")) == {}
    (tmp_path / "run" / "config.yaml").unlink()
    assert run.template_of_run(run.ModelSource(str(checkpoint), "checkpoint", "", "")) == {}


def test_a_mistyped_data_set_is_said_before_a_model_is_prepared(monkeypatch):
    monkeypatch.setattr(preparation, "prepare", lambda config: pytest.fail("prepared"))
    with pytest.raises(UserError, match="--data arithh: no such file, and no data set of that name: choose arith, gsm"):
        parse(["--model", "tiny", "--data", "arithh", "--out", "o"])


def test_defaults_are_the_published_metric():
    settings = parse(["--model", "m", "--data", "d", "--out", "o"])
    assert (settings.samples, settings.temperature, settings.greedy) == (1, 1.0, False)
    assert (settings.max_prompt_length, settings.max_response_length, settings.limit) == (512, 1024, None)


def test_names_are_those_of_the_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(preparation, "prepare", lambda config: 0)
    monkeypatch.chdir(tmp_path)
    settings = parse(["--model", "tiny", "--data", "arith", "--out", "o", "--split", "validation"])
    assert (tmp_path / settings.data).resolve() == REPO_ROOT / "Dataset/arithmetic/data/validation.parquet"
    assert (tmp_path / settings.model).resolve() == REPO_ROOT / ".cache/models/tiny"
    assert (settings.max_prompt_length, settings.max_response_length, settings.reward_function) == (16, 32, None)
    settings = parse(["--model", "llama1b", "--data", "gsm", "--out", "o", "--max-response-length", "9"])
    assert settings.model == "meta-llama/Llama-3.2-1B-Instruct" and settings.template == {"date_string": "26 Jul 2024"}
    assert (settings.max_prompt_length, settings.max_response_length) == (512, 9)
    with pytest.raises(UserError, match="--split test is for a data set by name .*d.parquet is none"):
        parse(["--model", "m", "--data", "d.parquet", "--out", "o", "--split", "test"])


def test_script_works_from_anywhere(root, tmp_path):
    command = [
        "bash",
        str(root / "Running-Bash" / "eval.sh"),
        "--model",
        "./none",
        "--data",
        "none.parquet",
        "--out",
        "out",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "none.parquet" in done.stderr, done.stderr
