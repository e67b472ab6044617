"""A model folder is whole or not there."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from Verl import REPO_ROOT
from Verl.base_models.publish import RECORD, build_once, read_record
from Verl.errors import UserError


def write_weights(text="weights"):
    def build(folder):
        (folder / "model.safetensors").write_text(text)
        return {"parameters": 7}

    return build


def must_not_build(folder):
    raise AssertionError("built again")


def test_built_once_and_then_skipped(tmp_path):
    record, built = build_once(tmp_path / "model", {"seed": 0}, write_weights())
    assert built
    assert (record["recipe"], record["parameters"]) == ({"seed": 0}, 7)
    assert build_once(tmp_path / "model", {"seed": 0}, must_not_build) == (record, False)
    assert read_record(tmp_path / "model") == record
    for path in (tmp_path / "model", *(tmp_path / "model").iterdir()):
        assert path.stat().st_mode & 0o044 == 0o044  # others may read it: a Ray worker, a colleague


def test_another_recipe_replaces_the_model(tmp_path):
    build_once(tmp_path / "model", {"seed": 0}, write_weights("old"))
    build_once(tmp_path / "model", {"seed": 1}, write_weights("new"))
    assert (tmp_path / "model" / "model.safetensors").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]


def test_a_damaged_model_is_built_again(tmp_path):
    build_once(tmp_path / "model", {"seed": 0}, write_weights())
    (tmp_path / "model" / "model.safetensors").write_text("weig")
    assert read_record(tmp_path / "model") is None
    assert build_once(tmp_path / "model", {"seed": 0}, write_weights())[1]


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("words")
    with pytest.raises(UserError, match="not ours"):
        build_once(tmp_path / "thesis", {}, must_not_build)
    with pytest.raises(UserError, match="is a file"):
        build_once(tmp_path / "thesis" / "chapter.tex", {}, must_not_build)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "words"


def test_a_failing_build_leaves_nothing_and_keeps_the_old_model(tmp_path):
    build_once(tmp_path / "model", {"seed": 0}, write_weights("old"))

    def fail(folder):
        (folder / "model.safetensors").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(tmp_path / "model", {"seed": 1}, fail)
    assert (tmp_path / "model" / "model.safetensors").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]


def test_a_killed_build_leaves_no_model_and_the_next_one_cleans_up(tmp_path):
    """SIGKILL while the files are being written: the name a run would load must not exist."""
    program = (
        "import sys, time; from pathlib import Path; from Verl.base_models.publish import build_once\n"
        "def build(folder):\n"
        "    (folder / 'model.safetensors').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "build_once(Path(sys.argv[1]), {}, build)\n"
    )
    target = tmp_path / "model"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(target)], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert any(path.name.startswith(".model.partial-") for path in tmp_path.iterdir())
    started = time.monotonic()
    assert build_once(target, {}, write_weights())[1]
    assert time.monotonic() - started < 30  # the dead process's lock does not hold
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}}', '{"recipe": {}, "files": {"gone": {"bytes": 1}}}'])
def test_a_record_that_is_none(tmp_path, text):
    (tmp_path / RECORD).write_text(text)
    assert read_record(tmp_path) is None


def test_the_record_names_no_path(tmp_path):
    build_once(tmp_path / "model", {"seed": 0}, write_weights())
    text = (tmp_path / "model" / RECORD).read_text()
    assert str(tmp_path) not in text
    assert list(json.loads(text)["files"]) == ["model.safetensors"]
