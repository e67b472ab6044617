"""The samples viewer: reads what the trainer writes, filters, pairs two runs, and never trusts what a model said."""

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from Verl.analysis.samples import cli as samples
from Verl.analysis.samples.page import page
from Verl.analysis.samples.view import Filters, build_view, find_run, visible
from Verl.data.arithmetic import ArithmeticSum, to_row
from Verl.data.schema import write_split_set
from Verl.errors import UserError
from Verl.reward.sources import CHAIN_SUM
from Verl.trainer.run_log import RunLog

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">&amp;\x1b[31mred\u202e[bold]x[/bold]'


class FakeRollouts(SimpleNamespace):
    """What RunLog.samples reads of the trainer's Rollouts."""

    def parts(self):
        return [part for part in (self, self.extra) if part is not None]

    def __len__(self):
        return len(self.indices)


def rollouts(answers: dict[tuple[int, int], tuple[str, float]]) -> FakeRollouts:
    """{(index, rollout): (text, reward)} as one step's rollouts; a response is its characters' codes."""
    rewards = [reward for _, reward in answers.values()]
    zeros = [0.0] * len(answers)
    return FakeRollouts(
        data_sources=[CHAIN_SUM] * len(answers),
        indices=[index for index, _ in answers],
        sessions=[rollout for _, rollout in answers],
        rewards=rewards,
        scores={"strict": rewards, "flexible": rewards, "format": rewards, "failure": zeros, "timeout": zeros},
        log_probs=[[-0.5] * len(text) for text, _ in answers.values()],
        response_lengths=[len(text) for text, _ in answers.values()],
        responses=[[ord(character) for character in text] for text, _ in answers.values()],
        truncated=[],
        penalties=[],
        reward_parts={"words": [float(len(text)) for text, _ in answers.values()], "note": [HOSTILE] * len(answers)},
        extra=None,
    )


@pytest.fixture
def result(tmp_path):
    """Two runs, three steps; questions 4 and 17 with two rollouts each. Written by the trainer's own RunLog."""

    def write(run: str, steps: dict[int, dict]):
        log = RunLog(run, tmp_path, Console(file=io.StringIO()), {"enable": True, "max_gb": 1.0})
        log._decode = lambda ids: "".join(chr(code) for code in ids)
        for step, answers in steps.items():
            log.samples(rollouts(answers), step)

    write(
        "one",
        {
            1: {(17, 1): ("a1", 0.0), (17, 0): ("a0", 0.0), (4, 0): ("b0", 1.0), (4, 1): ("b1", 0.0)},
            2: {(17, 0): ("c0", 1.0), (17, 1): ("c1", 0.0), (4, 0): ("d0", 1.0), (4, 1): ("d1", 1.0)},
            10: {(17, 0): ("e0", 1.0), (17, 1): ("e1", 1.0), (4, 0): (HOSTILE, 0.0), (4, 1): ("", 0.0)},
        },
    )
    write("two", {1: {(17, 0): ("A0", 1.0), (4, 1): ("B1", 0.0)}, 10: {(17, 1): ("E1", 0.0)}})
    return tmp_path


def texts(view):
    return [entry.sample["text"] for entry in view.entries]


def view_of(result, limit=None, against=None, **filters):
    other = find_run(against, result) if against else None
    return build_view(find_run("one", result), Filters(**filters), limit, other)


def run(result, *arguments, width=120):
    """The command's exit status and what it wrote to the terminal."""
    out = io.StringIO()
    console = Console(file=out, width=width, markup=False, highlight=False, force_terminal=False)
    return samples.main([*arguments, "--result", str(result)], console), out.getvalue()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"first": 2, "last": 2}, ["d0", "d1", "c0", "c1"]),
        ({"first": 2}, ["d0", "d1", "c0", "c1", HOSTILE, "", "e0", "e1"]),
        ({"index": 17}, ["a0", "a1", "c0", "c1", "e0", "e1"]),
        ({"index": 17, "reward": 1.0}, ["c0", "e0", "e1"]),
        ({"first": 1, "last": 9, "reward": 0.0}, ["b1", "a0", "a1", "c1"]),
    ],
)
def test_filters_by_step_question_and_reward_in_order(result, filters, expected):
    assert texts(view_of(result, **filters)) == expected


def test_the_parts_of_a_reward_stand_beside_each_response_and_do_nothing(result):
    shown = run(result, "one", "--index", "4", "--reward", "1", width=200)[1]
    assert "words 2" in shown and "note <script>" in shown and "\x1b" not in shown and "\u202e" not in shown


def test_limit_cuts_what_is_shown_but_not_the_count(result):
    view = view_of(result, limit=3)
    assert texts(view) == ["b0", "b1", "a0"] and view.found == 12
    assert "3 of 12 responses" in run(result, "one", "--limit", "3")[1]


def test_one_question_over_the_steps_counts_right_and_wrong_whatever_is_shown(result):
    view = view_of(result, index=17, reward=1.0)
    assert [(row.step, row.responses, row.reward) for row in view.history[0]] == [
        (1, 2, 0.0),
        (2, 2, 0.5),
        (10, 2, 1.0),
    ]
    status, shown = run(result, "one", "--index", "17")
    assert status == 0 and "mean reward" in shown and "6 responses" in shown


def test_two_runs_are_paired_by_step_question_and_rollout(result):
    view = view_of(result, against="two")
    pairs = [(entry.sample["text"], entry.other["text"]) for entry in view.entries]
    assert pairs == [("b1", "B1"), ("a0", "A0"), ("e1", "E1")]
    assert view.found == 3 and view.unpaired == 9


def test_reward_filter_side_by_side_is_the_first_runs(result):
    view = view_of(result, against="two", reward=0.0)
    assert [(entry.sample["text"], entry.other["text"]) for entry in view.entries] == [("b1", "B1"), ("a0", "A0")]


def test_side_by_side_in_the_terminal_stands_on_one_line_where_there_is_room(result):
    wide, narrow = (run(result, "one", "--against", "two", width=width)[1] for width in (140, 60))
    assert any("a0" in line and "A0" in line for line in wide.splitlines())
    assert "A0" in narrow and not any("a0" in line and "A0" in line for line in narrow.splitlines())


def test_question_and_true_answer_come_from_the_runs_training_file(result):
    rows = [to_row(ArithmeticSum(f"{i}+1-2=", str(i - 1), 3), "train", i) for i in range(18)]
    write_split_set(result / "data", {"train": rows}, source="test", settings={})
    (result / "one" / "config.yaml").write_text(f"data:\n  train_files: {result / 'data' / 'train.parquet'}\n")
    assert view_of(result, index=17).questions == {(CHAIN_SUM, 17): ("17+1-2=", "16")}
    assert "true answer: 16" in run(result, "one", "--index", "17")[1]
    (result / "data" / "train.parquet").unlink()
    assert view_of(result, index=17).questions == {}


def test_answers_of_an_evaluation_by_set(result):
    log = RunLog("one", result, Console(file=io.StringIO()), {"enable": True, "max_gb": 1.0})
    log._decode = lambda ids: "".join(chr(code) for code in ids)
    for name, said in (("train", "x"), ("test", "y")):
        log.evaluation(name, 5, rollouts({(17, 0): (said + "0", 0.0), (17, 1): (said + "1", 1.0)}))
    rows = [to_row(ArithmeticSum("8+9-1=", "16", 3), "test", 17)]
    write_split_set(result / "data", {"test": rows}, source="test", settings={})
    (result / "one" / "config.yaml").write_text(f"data:\n  test_files: {result / 'data' / 'test.parquet'}\n")
    view = view_of(result, evaluation="test", index=17)
    assert texts(view) == ["y0", "y1"] and view.questions == {(CHAIN_SUM, 17): ("8+9-1=", "16")}
    assert [(row.step, row.reward) for row in view.history[0]] == [(5, 0.5)]
    status, shown = run(result, "one", "--eval", "test", "--reward", "1")
    assert status == 0 and "evaluation on test, reward 1, 1 response\n" in shown and "y1" in shown and "x1" not in shown
    assert run(result, "one", "--eval", "validation")[0] == 2


def test_scores_without_texts_are_reported(result):
    log = RunLog("one", result, Console(file=io.StringIO()), {"enable": False, "max_gb": 1.0})
    log.evaluation("test", 5, rollouts({(17, 0): ("y", 0.0)}))
    with pytest.raises(UserError, match="scores only"):
        view_of(result, evaluation="test")


def test_steps_after_the_size_cap_do_not_hide_those_before(result):
    log = RunLog("one", result, Console(file=io.StringIO()), {"enable": True, "max_gb": 1.0})
    log._decode = lambda ids: "".join(chr(code) for code in ids)
    for step in (0, 5, 10):
        log._samples["enable"] = step == 0  # as once samples.max_gb is reached
        log.evaluation("test", step, rollouts({(17, 0): (f"y{step}", 0.0)}))
    view = view_of(result, evaluation="test", index=17)
    assert texts(view) == ["y0"] and view.scores_only == 2 and [row.step for row in view.history[0]] == [0]
    assert "steps with scores only: 2" in run(result, "one", "--eval", "test")[1]
    assert texts(view_of(result, evaluation="test", against="one")) == ["y0"]
    with pytest.raises(UserError, match="step_000005.parquet holds scores only"):
        view_of(result, evaluation="test", first=5)


def test_extra_responses_are_marked_and_older_files_can_be_read(result):
    log = RunLog("three", result, Console(file=io.StringIO()), {"enable": True, "max_gb": 1.0})
    log._decode = lambda ids: "".join(chr(code) for code in ids)
    drawn = rollouts({(17, 0): ("a", 0.0)})
    drawn.extra = rollouts({(17, 1): ("b", 1.0)})
    log.samples(drawn, 1)
    shown = run(result, "three")[1]
    assert shown.count("not trained on") == 1 and shown.index("rollout 1") < shown.index("not trained on")
    path = result / "three" / "samples" / "step_000001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["trained", "seed"]), path)
    assert "not trained on" not in run(result, "three")[1]


def test_control_and_direction_characters_become_visible():
    assert visible("a\x1b[31m\x00\x7f\x9b\u202e\u2066\ufeff\n\tz") == "a␛[31m␀␡\\u009b\\u202e\\u2066\\ufeff\n\tz"
    assert visible("naïve 数学 👩\u200d🏫") == "naïve 数学 👩\u200d🏫"


def test_terminal_shows_hostile_text_as_text(result):
    shown = run(result, "one", "--step", "10", "--index", "4")[1]
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "␛[31mred" in shown and "[bold]x[/bold]" in shown and "<script>" in shown
    assert "(empty)" in shown


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


def test_page_escapes_every_text_and_loads_nothing(result):
    view = view_of(result, against=None, first=10)
    view.questions = {(HOSTILE, 4): (HOSTILE, HOSTILE)}
    view.runs, view.filters = [HOSTILE], HOSTILE
    for entry in view.entries:
        entry.sample["data_source"] = HOSTILE
    written = page(view)
    found = Tags()
    found.feed(written)
    assert not {"script", "img", "bold", "link", "iframe"} & set(found.tags)
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "href")]
    assert found.text.count("<script>alert(1)</script>") == 11 + 4  # of each answer a part of its reward
    # run and filters in title and heading (4), question, true answer, the places of 4 responses, and one response
    assert "\x1b" not in written and "\u202e" not in written
    assert not re.search(r"https?://|url\(|@import", written)
    assert "default-src 'none'" in written
    assert "prefers-color-scheme: dark" in written and "width=device-width" in written


def test_page_side_by_side_and_history(result):
    written = page(view_of(result, against="two", index=17))
    assert written.count('class="pair"') == 2 and written.count("over the steps") == 2
    assert written.index("A0") > written.index("a0")


def test_long_response_is_folded_whole(result, tmp_path):
    view = view_of(result, first=2, last=2)
    view.entries[0].sample["text"] = "x" * 5000
    written = page(view)
    assert written.count("<details>") == 1 and "x" * 5000 in written


def test_html_option_writes_the_file_whole(result, tmp_path):
    status, shown = run(result, "one", "--html", str(tmp_path / "deep" / "page.html"))
    assert status == 0 and "12 of 12" in shown
    assert (tmp_path / "deep" / "page.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "no samples of a run nope"),
        (["one", "--step", "x"], "--step x"),
        (["one", "--step", "9:3"], "ends before it begins"),
        (["one", "--step", "77"], "has samples of steps 1 to 10"),
        (["one", "--index", "5"], "no response of one matches (question 5)"),
        (["one", "--limit", "-1"], "--limit -1"),
        (["one", "--against", "nope"], "no samples of a run nope"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(result, capsys, arguments, sentence):
    assert run(result, *arguments)[0] == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_unreadable_file_is_named(result):
    (result / "one" / "samples" / "step_000002.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="step_000002"):
        view_of(result)


def test_default_limit_is_twenty_and_zero_means_all(result, monkeypatch):
    monkeypatch.setattr(samples, "DEFAULT_LIMIT", 5)
    assert "5 of 12 responses" in run(result, "one")[1]
    assert ": all responses, 12 responses" in run(result, "one", "--limit", "0")[1]


def test_viewer_imports_neither_torch_nor_verl():
    heavy = "[m for m in ('torch', 'verl', 'transformers', 'ray') if m in sys.modules]"
    code = f"import sys, Verl.analysis.samples.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
