"""A prompt that is changed in the code can't be trained silently on a set that was prepared before."""

import json
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from Verl.data import arithmetic, gsm8k, hendrycks_math, prompts
from Verl.data.prepare import main
from Verl.data.recipe import Outdated, check_current, outdated, script_may_prepare
from Verl.data.schema import make_row, require_prepared, write_split_set


def edit(folder, **changes):
    """A manifest as another version of the code would have left it."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def refused(folder):
    with pytest.raises(Outdated) as error:
        check_current(folder / "test.parquet")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def prepared(gsm8k_folder, tmp_path):
    def run(*options, out=tmp_path / "data"):
        assert main(gsm8k.GSM8K, out, ["--source", str(gsm8k_folder), "--validation", "4", *options]) == 0
        return out

    return run


@pytest.fixture
def sums(tmp_path):
    arithmetic.prepare(tmp_path / "sums", sizes={"train": 20, "test": 8})
    return tmp_path / "sums"


def test_a_set_is_current_as_long_as_the_code_makes_the_same_rows(prepared, sums):
    for folder in (prepared(), sums):
        assert outdated(folder) is None
        check_current(folder / "test.parquet")


def test_a_changed_prompt_is_refused_with_the_command_that_prepares_again(prepared, monkeypatch):
    folder = prepared("--seed", "3")
    assert outdated(folder) is None
    monkeypatch.setattr(prompts, "GSM8K_INSTRUCTION", " Think first.")
    said = refused(folder)
    assert said == (
        f"{folder}: the prompt has changed in the code since this set was prepared; run: python Dataset/gsm8k/prepare.py "
        f"--out {folder} --seed 3 --validation 4 --source <folder of the published files>"
    )
    assert not script_may_prepare(folder), "a script would lose the options"
    prepared("--seed", "3")
    assert outdated(folder) is None
    assert pq.read_table(folder / "test.parquet")["prompt"][0].as_py()[0]["content"].endswith(" Think first.")
    monkeypatch.undo()
    assert "the prompt" in refused(folder)


def test_a_prompt_that_is_changed_where_the_data_set_is_declared(prepared, monkeypatch):
    folder = prepared()
    monkeypatch.setattr(gsm8k, "GSM8K", type(gsm8k.GSM8K)(**{**vars(gsm8k.GSM8K), "prompt": lambda text: f"Q: {text}"}))
    assert "the prompt has changed" in refused(folder)


def test_a_prompt_that_depends_on_white_space_is_seen(prepared, monkeypatch):
    folder = prepared()
    monkeypatch.setattr(
        gsm8k, "GSM8K", type(gsm8k.GSM8K)(**{**vars(gsm8k.GSM8K), "prompt": lambda text: prompts.gsm8k_prompt(text.strip())})
    )
    assert "the prompt has changed" in refused(folder)


def test_other_truths_and_a_message_more_are_seen(prepared, monkeypatch):
    folder = prepared()
    row = gsm8k.GSM8K.recipe()
    assert row["reward_model"]["ground_truth"] == "5600"
    row["reward_model"]["ground_truth"] = "5,600"
    row["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    monkeypatch.setattr(type(gsm8k.GSM8K), "recipe", lambda self: row)
    assert "the prompt, the ground truth have changed" in refused(folder)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("TASK_SETTINGS", {"max_terms": 5}, "the task"), ("SPLIT_SIZES", {"train": 1024}, "the default sizes")],
)
def test_settings_of_the_sums(sums, monkeypatch, name, value, words):
    monkeypatch.setattr(arithmetic, name, {**getattr(arithmetic, name), **value})
    assert words in refused(sums)
    assert f"Dataset/arithmetic/prepare.py --out {sums} --train-size 20 --test-size 8" in refused(sums)


def test_math_too(math_folder, tmp_path, monkeypatch):
    assert main(hendrycks_math.MATH, tmp_path / "m", ["--source", str(math_folder), "--validation", "2"]) == 0
    assert outdated(tmp_path / "m") is None
    monkeypatch.setattr(prompts, "MATH_INSTRUCTION", " Box it.")
    assert "Dataset/MATH/prepare.py" in refused(tmp_path / "m")


def test_a_file_without_a_manifest_or_beside_one_is_its_owners(prepared, tmp_path, monkeypatch):
    folder = prepared()
    monkeypatch.setattr(prompts, "GSM8K_INSTRUCTION", " Think first.")
    (tmp_path / "own").mkdir()
    shutil.copy(folder / "test.parquet", tmp_path / "own" / "test.parquet")
    check_current(tmp_path / "own" / "test.parquet")
    shutil.copy(folder / "test.parquet", folder / "own.parquet")
    check_current(folder / "own.parquet")
    write_split_set(tmp_path / "other", {"test": [own_row()]}, source="somebody's", settings={})
    check_current(tmp_path / "other" / "test.parquet")
    assert "recipe" not in require_prepared(tmp_path / "other")


def own_row():
    texts = {"data_source": "mine", "question": "1", "prompt": "1", "ground_truth": "1", "ability": "", "answer": ""}
    return make_row(**texts, split="test", index=0)


def test_a_script_of_a_users_own_is_the_recipe(tmp_path):
    script = tmp_path / "mine" / "prepare.py"
    script.parent.mkdir()
    script.write_text("PROMPT = 'a'\n")
    folder = tmp_path / "mine" / "data"
    write_split_set(folder, {"test": [own_row()]}, source="somebody's", settings={})
    assert outdated(folder) is None and script_may_prepare(folder)
    script.write_text("PROMPT = 'b'\n")
    said = refused(folder)
    assert "its prepare.py has changed" in said and f"run: python {script} --out {folder}" in said
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    check_current(moved / "test.parquet")  # away from its script nobody can say


# ---- sets of an older version, whose manifest has no recipe ---------------------------------------------------------


def test_a_set_of_an_older_version_is_prepared_again(sums, prepared, tmp_path):
    edit(sums, recipe=None)
    assert "does not say by what prompt" in refused(sums) and "under settings" in refused(sums)
    assert not script_may_prepare(sums), "20 questions are not what the script makes"
    edit(sums, settings={"seed": 0, "sizes": dict(arithmetic.SPLIT_SIZES), "task": {}})
    assert script_may_prepare(sums) and refused(sums).endswith(f"run: python Dataset/arithmetic/prepare.py --out {sums}")
    folder = prepared()
    edit(folder, recipe=None)
    assert not script_may_prepare(folder), "it was read from files"
    settings = json.loads((folder / "manifest.json").read_text())["settings"]
    edit(folder, settings={**settings, "validation": 512, "read": [{"file": "hub:openai/gsm8k:train"}]})
    assert outdated(folder) and script_may_prepare(folder)


@pytest.mark.parametrize("recipe", ["x", [], {"maker": "GSM8K", "made": []}, {"maker": "GSM8K"}])
def test_a_recipe_that_is_none_is_no_traceback(prepared, recipe):
    folder = prepared()
    edit(folder, recipe=recipe)
    assert refused(folder)
    edit(folder, recipe={"maker": "somebody's"})
    assert outdated(folder) is None


def test_the_question_costs_milliseconds_and_no_generator(sums):
    check_current(sums / "test.parquet")
    began = time.process_time()
    for _ in range(20):
        check_current(sums / "test.parquet")
    assert time.process_time() - began < 1.0
    code = "import sys; from Verl.data.recipe import outdated; outdated(sys.argv[1]); print('reasoning_gym' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(sums)], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
