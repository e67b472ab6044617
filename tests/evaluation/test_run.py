"""An evaluation from the set to the files, with planted answers: what is asked, written, resumed and refused."""

import json
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from Verl.data.arithmetic import ArithmeticSum, to_row
from Verl.data.schema import DataError, write_split_set
from Verl.errors import UserError
from Verl.evaluation import printed
from Verl.evaluation.run import evaluate
from Verl.evaluation.store import EVALUATION, RESPONSES
from Verl.reward.sources import CHAIN_SUM, MATH_500
from Verl.seeds import rollout_seed


def test_files_hold_every_response_and_the_metrics_of_them(make_settings, planted, console):
    settings = make_settings(samples=3, greedy=True)
    result = evaluate(settings, console, planted())
    rows = pq.read_table(settings.out / RESPONSES).to_pylist()
    assert [(row["index"], row["sample"], row["greedy"]) for row in rows] == [
        (index, sample, greedy)
        for index in range(20)
        for sample, greedy in ((0, False), (1, False), (2, False), (0, True))
    ]
    for row in rows:
        seed = 0 if row["greedy"] else rollout_seed(0, 0, CHAIN_SUM, row["index"], row["sample"], validate=True)
        assert row["strict"] == float(seed % 3 == 0), "the planted answer depends on the seed that was asked for"
        assert row["text"].startswith("#") and len(row["tokens"]) == row["response_length"] == len(row["text"]) + 1
        assert row["log_prob"] == pytest.approx(-0.25 * row["response_length"]) and row["stop_reason"] == "completed"
    sampled = [row["strict"] for row in rows if not row["greedy"]]
    found = {(metric["name"], metric["rule"]): metric["estimate"] for metric in result["metrics"]}
    assert found["avg@3", "strict"] == pytest.approx(sum(sampled) / 60)
    assert found["greedy", "strict"] == 1.0
    written = json.loads((settings.out / EVALUATION).read_text())
    assert written["metrics"] == result["metrics"] and written["counts"]["responses"] == 80
    assert {"settings", "versions", "commit", "command", "seconds"} <= set(written)
    assert not (settings.out / ".parts").exists()


def test_questions_that_no_rule_of_ours_knows_are_scored_by_a_function(make_settings, test_set, planted, console, tmp_path):
    rows = pq.read_table(test_set).to_pylist()
    path, score = tmp_path / "own.parquet", tmp_path / "score.py"
    pq.write_table(pa.Table.from_pylist([{**row, "data_source": "mine/sums"} for row in rows]), path)
    score.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n"
        "    assert extra_info['index'] != 3\n"
        "    right = solution_str.rpartition('#')[2].strip() == ground_truth\n"
        "    return {'score': right, 'length': len(solution_str), 'said': solution_str}\n"
    )
    settings = make_settings(data=path, samples=2, reward_function=(str(score), "compute_score"))
    found = evaluate(settings, console, planted())
    assert [(metric["name"], metric["rule"]) for metric in found["metrics"]] == [("avg@2", "strict"), ("pass@2", "strict")]
    known = [row for row in pq.read_table(settings.out / RESPONSES).to_pylist() if row["index"] != 3]
    assert all(row["strict"] == float(row["text"] == f"#{row['ground_truth']}") for row in known)
    assert {row["strict"] for row in known} == {0.0, 1.0} and found["counts"]["failures"] == 2
    lengths = [len(row["text"]) for row in known]
    assert found["parts"] == {"reward/length": pytest.approx(sum(lengths) / len(lengths))}
    assert json.loads(known[0]["parts"]) == {"length": float(lengths[0]), "said": known[0]["text"]}
    with pytest.raises(DataError, match="mine/sums"):
        evaluate(make_settings(data=path, out=tmp_path / "without"), console, planted())


def test_table_and_progress_can_be_read(make_settings, planted, console):
    evaluate(make_settings(), console, planted())
    shown = console.file.getvalue()
    assert "avg@1: Pass@1, one sample at temperature 1.0\n" in shown
    (row,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["avg@1"]]
    assert row[1:4] == ["40.0", "(20.0", "to"] and row.count("to") == 3
    assert "8 of 20 responses" in shown and "left" in shown and "bootstrap over questions" in shown


def test_time_left_comes_from_this_session_and_is_shown_within_a_long_batch(console, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(printed.time, "monotonic", lambda: now[0])
    progress = printed.EvaluationProgress(console, total=100, done_before=40, max_length=50)
    for now[0], length in ((10.0, 5), (40.0, 25), (45.0, 27)):  # only the second is 30 s after the last line
        progress.tick(20, length)
    now[0] = 60.0
    progress.batch(20, 0.5)
    lines = console.file.getvalue().splitlines()
    # 20 responses half way after 40 s are worth 10: 50 are left, 4 s each.
    assert lines[1].endswith("20 more at token 25 of at most 50, 40 s so far, at most 3 min 20 s left")
    assert "60 of 100 responses, 1 min 00 s so far, 2 min 00 s left" in lines[2] and len(lines) == 3


def test_interrupted_and_resumed_gives_the_same_bytes(make_settings, planted, console, tmp_path):
    whole = make_settings(out=tmp_path / "whole", samples=2)
    evaluate(whole, console, planted())
    settings = make_settings(samples=2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings, console, planted(stop_in_batch=3))
        assert not (settings.out / EVALUATION).exists() and not (settings.out / RESPONSES).exists()
    last = planted()
    evaluate(settings, console, last)
    assert last.batches == 1, "five batches, of which two calls did two each"
    assert (settings.out / RESPONSES).read_bytes() == (whole.out / RESPONSES).read_bytes()
    assert "32 of 40 responses were done before" in console.file.getvalue()


_KILLED = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
sys.path.insert(0, sys.argv[1])
from conftest import Planted
from Verl.evaluation.run import evaluate
from Verl.evaluation.settings import EvalSettings

class Killed(Planted):
    def generate(self, requests, tick):
        if self.batches == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(requests, tick)

evaluate(EvalSettings(*map(eval, sys.argv[2:5]), device="cpu", batch=8, max_response_length=12), Console(), Killed())
"""


def test_killed_and_resumed_gives_the_same_bytes(make_settings, planted, console, tmp_path):
    settings, whole = make_settings(), make_settings(out=tmp_path / "whole")
    arguments = [repr(settings.model), f"Path({str(settings.data)!r})", f"Path({str(settings.out)!r})"]
    command = [sys.executable, "-c", _KILLED, os.path.dirname(__file__), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    last = planted()
    evaluate(settings, console, last)
    evaluate(whole, console, planted())
    assert last.batches == 1
    assert (settings.out / RESPONSES).read_bytes() == (whole.out / RESPONSES).read_bytes()


def test_finished_evaluation_is_shown_without_a_model(make_settings, planted, console):
    settings = make_settings()
    result = evaluate(settings, console, planted())
    again = evaluate(settings, console, None)  # would fail if it were called
    assert again["metrics"] == result["metrics"] and "finished already" in console.file.getvalue()


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"samples": 2}, {"max_response_length": 9}, {"limit": 5}, {"template": {"date_string": "26 Jul 2024"}}],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(make_settings, planted, console, changes):
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_settings(), console, planted(stop_in_batch=2))
    with pytest.raises(UserError, match=f"other settings \\({next(iter(changes))}\\)"):
        evaluate(make_settings(**changes), console, None)
    evaluate(make_settings(), console, planted())
    with pytest.raises(UserError, match="other settings"):
        evaluate(make_settings(**changes), console, None)


def test_another_model_in_the_same_place_is_noticed(make_settings, planted, console, tiny_model, tmp_path):
    evaluate(make_settings(), console, planted())
    weights = tiny_model / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match=r"other settings \(model\)"):
            evaluate(make_settings(), console, None)
    finally:
        weights.write_bytes(before)


def test_folder_in_use_is_refused(make_settings, planted, console):
    settings = make_settings()

    class Intruder(planted):
        def generate(self, requests, tick):
            with pytest.raises(UserError, match="another evaluation is going on"):
                evaluate(settings, console, None)
            return super().generate(requests, tick)

    evaluate(settings, console, Intruder())


def test_long_prompts_are_left_out_and_counted_and_the_limit_counts_rows(make_settings, planted, console, tmp_path):
    texts = ["1+2-3=", "1+2-3+4=", "4+5-3=", "9+9-9="]
    rows = [to_row(ArithmeticSum(text, str(eval(text[:-1])), 3), "test", index) for index, text in enumerate(texts)]
    write_split_set(tmp_path / "set", {"test": rows}, source="test", settings={})
    # A prompt is its characters and two marks: eight tokens let the three-term questions through.
    settings = make_settings(data=tmp_path / "set" / "test.parquet", limit=3, max_prompt_length=8)
    result = evaluate(settings, console, planted())
    assert result["counts"]["questions"] == 2 and result["counts"]["too_long"] == 1
    assert pq.read_table(settings.out / RESPONSES)["index"].to_pylist() == [0, 2]
    assert "1 questions were left out" in console.file.getvalue()


def test_math_is_scored_with_math_verify(make_settings, planted, console, tmp_path):
    rows = [to_row(ArithmeticSum("1+1-0=", "2", 3), "test", 0) | {"data_source": MATH_500}]
    write_split_set(tmp_path / "math", {"test": rows}, source="test", settings={})
    settings = make_settings(data=tmp_path / "math" / "test.parquet")
    evaluate(settings, console, planted(is_right=lambda request: True, mark="= "))
    (row,) = pq.read_table(settings.out / RESPONSES).to_pylist()
    assert (row["text"], row["strict"], row["flexible"], row["format"]) == ("= 2", 0.0, 1.0, 0.0)


def test_against_tests_the_difference_on_the_same_questions(make_settings, planted, console, tmp_path):
    before = make_settings(out=tmp_path / "before")
    evaluate(before, console, planted(is_right=lambda request: False))
    settings = make_settings(against=before.out)
    result = evaluate(settings, console, planted(is_right=lambda request: True))
    strict = result["against"]["comparisons"][0]
    assert (strict["rule"], strict["test"], strict["questions"]) == ("strict", "exact McNemar", 20)
    assert strict["difference"] == 1.0 and strict["p"] == pytest.approx(2 / 2**20)
    assert json.loads((settings.out / EVALUATION).read_text())["against"] == result["against"]
    assert "exact McNemar" in console.file.getvalue()


def test_against_can_be_requested_afterwards(make_settings, planted, console, tmp_path):
    for name, right in (("before", False), ("out", True)):
        evaluate(make_settings(out=tmp_path / name), console, planted(is_right=lambda request, right=right: right))
    result = evaluate(make_settings(against=tmp_path / "before"), console, None)
    assert result["against"]["comparisons"][0]["difference"] == 1.0
