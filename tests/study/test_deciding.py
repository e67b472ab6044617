"""Seeds until it is decided: who goes on, who stops, and that a study that is cut decides the same."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from study_helpers import calls, started, wait_for

from Verl.analysis.verdicts import deciding
from Verl.errors import UserError
from Verl.study import study_cli

CHANCES = {"grpo_0032_1": 0.5, "grpo_0032_8": 0.7, "grpo_0064_8": 0.5, "grpo_0128_8": 0.53}
STUDY = ["--pair", "tiny_arith", "--arms", *CHANCES, "--steps", "2"]
RULE = ["--seeds", "0", "1", "2", "--until-decided", "--margin", "0.06", "--max-seeds", "6"]


def arguments(folder, fake):
    return [*STUDY, "--result", str(folder), "--command", shlex.join(fake), "--poll", "0.02", *RULE]


def decided(folder):
    return json.loads((folder / "study_tiny_arith.json").read_text())["decisions"]


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setenv("FAKE_ANSWERS", json.dumps(CHANCES))


def test_only_undecided_comparisons_get_seeds_and_the_table_says_why(tmp_path, fake, answers, capsys):
    assert study_cli.main(arguments(tmp_path, fake)) == 0
    arms, said = decided(tmp_path)["arms"], capsys.readouterr().out
    assert decided(tmp_path)["looks"] == [3, 4, 5, 6] and decided(tmp_path)["reference"] == "grpo_0032_1"
    assert arms["grpo_0032_8"]["verdict"] == "better" and arms["grpo_0064_8"]["verdict"] == "equivalent"
    assert all(one["stops"] and str(one["seeds"]) in one["reason"] for one in arms.values())
    ran = [name.partition("_tiny_arith")[0] for name in started(tmp_path)]
    assert {arm: ran.count(arm) for arm in arms} == {arm: one["seeds"] for arm, one in arms.items()}
    most = max(one["seeds"] for one in arms.values())
    assert arms["grpo_0032_8"]["seeds"] == 3 < most and ran.count("grpo_0032_1") == most  # all share the reference
    assert "look after 3 seeds" in said and "grpo_0032_8: better after 3 seeds; difference +0.2" in said
    before = started(tmp_path)
    assert study_cli.main(arguments(tmp_path, fake)) == 0  # everything is there: it decides again what it had decided
    assert started(tmp_path) == before and decided(tmp_path)["arms"] == arms


@pytest.mark.slow
@pytest.mark.long
def test_kill_9_between_looks_changes_no_decision(tmp_path, fake, answers):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert study_cli.main(arguments(whole, fake)) == 0
    command = [sys.executable, "-m", "Verl.study.study_cli", *arguments(cut, fake)]
    runner = subprocess.Popen(command, env={**os.environ, "FAKE_SECONDS": "0.1"})
    wait_for(lambda: any("_seed3" in call[1] for call in calls(cut)))
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    assert "_seed3" in " ".join(started(cut))
    assert study_cli.main(arguments(cut, fake)) == 0
    assert decided(cut) == decided(whole)
    assert {path.name for path in cut.glob("*.jsonl")} == {path.name for path in whole.glob("*.jsonl")}


def test_a_run_that_fails_for_good_ends_the_looks(tmp_path, fake, answers, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "grpo_0064_8_tiny_arith_seed1:2")
    assert study_cli.main(arguments(tmp_path, fake)) == 1
    assert decided(tmp_path)["arms"] == {} and not any("seed3" in name for name in started(tmp_path))
    monkeypatch.delenv("FAKE_FAIL")
    assert study_cli.main(arguments(tmp_path, fake)) == 0


def test_stopped_arms_keep_their_seeds_in_the_family():
    rule = deciding.rule_of("a", ["a", "b", "c"], [4, 2], 5, 0.02)
    assert rule.seeds == (2, 4, 5, 6, 7) and rule.plan.looks == (2, 3, 4, 5) and rule.plan.comparisons == 2
    stopped = {"b": deciding.Decision("better", True, "", 2, None), "c": deciding.Decision("undecided", False, "", 2, None)}
    assert rule.seeds_of(3, stopped) == {"a": (2, 4, 5), "b": (2, 4), "c": (2, 4, 5)}


def test_without_evaluations_nothing_is_decided(tmp_path, fake, capsys):
    assert study_cli.main(arguments(tmp_path, fake)) == 2
    assert "can't be compared with grpo_0032_1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--margin", "0.02"], "--margin is for --until-decided"),
        (["--until-decided", "--seeds", "0"], "needs two seeds to begin with"),
        (["--until-decided", "--max-seeds", "2"], "--max-seeds 2 is less than the 3 seeds"),
        (["--until-decided", "--against", "grpo_0032_16"], "which is not among the arms"),
        (["--until-decided", "--budget", "tokens=5"], "give --steps instead of --budget"),
        (["--until-decided", "--", "trainer.test_freq=-1"], "needs test evaluations"),
    ],
)
def test_a_slip_is_one_sentence(tmp_path, capsys, more, said):
    command = ["--command", "true", "--result", str(tmp_path)]
    assert study_cli.main(["--pair", "tiny_arith", "--arms", "grpo_0032_1", "grpo_0032_8", *command, *more]) == 2
    assert said in capsys.readouterr().err


def test_one_arm_has_nothing_to_be_compared_with():
    with pytest.raises(UserError, match="nothing to compare"):
        deciding.rule_of("a", ["a"], [0, 1], 5, 0.02)
