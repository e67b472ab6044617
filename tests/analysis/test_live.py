"""The live view: what is going on, from files that are being written, in any terminal."""

import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from simulated_runs import write_run

from Verl.analysis.live import cli as live
from Verl.analysis.live.braille import Series, chart, sparkline
from Verl.analysis.live.current import QUIET, Looker
from Verl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def _going(folder, arm="grpo_0032_8", seed=0, steps=range(0, 41, 10), total=100):
    """A run that has come to the last of ``steps``."""
    name = write_run(folder, arm, seed, steps=tuple(steps), full=True, status="running")
    (folder / name / "config.yaml").write_text(f"trainer:\n  total_training_steps: {total}\n")
    return name


def _shown(folder, *arguments, width=100, height=40, encoding="utf-8"):
    sink = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=sink, width=width, height=height, highlight=False, legacy_windows=False)
    status = live.main([*arguments, "--result", str(folder)], console)
    sink.seek(0)
    return status, sink.read()


def test_one_picture_says_how_far_a_run_is(tmp_path):
    name = _going(tmp_path)
    write_run(tmp_path, "grpo_0032_1", 0)
    status, text = _shown(tmp_path, "--once")
    row = json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[-1])
    assert status == 0 and "1 going on" in text and "grpo_0032_1" not in text and "base line" not in text
    for part in ("GRPO 32×8 on tiny_arith, seed 0: running", "step 40/100", "1 min 30 s left",
                 f"test {row['eval/test/pass@1']:.3f}", "reward 0.500", "length      12.0", "KL    0.0040"):  # fmt: skip
        assert part in text, part
    assert any(0x2801 <= ord(character) <= 0x28FF for character in text)
    for width in (50, 80, 200):
        assert max(map(len, _shown(tmp_path, "--once", width=width)[1].splitlines())) <= width


def test_the_parts_of_a_reward_have_a_line_each(tmp_path):
    path = tmp_path / f"{_going(tmp_path)}.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 50, "reward/brevity": 0.25, "reward/failures": 0.0}) + "\n")
    text = _shown(tmp_path, "--once")[1]
    assert "brevity" in text and "0.25" in text and "failures" not in text


def test_a_half_written_line_is_left_for_the_next_look(tmp_path):
    path = tmp_path / f"{_going(tmp_path)}.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 50, "train/rewa')
    looker = Looker(tmp_path)
    assert looker.look()[0].step == 40
    path.write_text(whole + json.dumps({"step": 50, "train/reward_mean": 0.75}) + "\n")
    (run,) = looker.look()
    assert run.step == 50 and run.curve("train/reward_mean").last == 0.75


def test_starting_failed_and_killed_runs_are_distinguished(tmp_path):
    starting = _going(tmp_path, seed=1)
    (tmp_path / f"{starting}.jsonl").unlink()
    assert "starting" in _shown(tmp_path, "--once")[1]
    name, long_ago = _going(tmp_path, seed=2), time.time() - QUIET - 5
    for path in (tmp_path / f"{name}.jsonl", tmp_path / name / "run.json"):
        os.utime(path, (long_ago, long_ago))
    with open(tmp_path / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert Looker(tmp_path, [name]).look()[0].status == "running"  # slow, but alive
    assert Looker(tmp_path, [name]).look()[0].status == "stopped without a word"
    write_run(tmp_path, "grpo_0032_1", 3, status="failed")
    assert "failed" in _shown(tmp_path, "grpo_0032_1_tiny_arith_seed3")[1]


def test_a_nan_does_not_break_the_picture_and_is_named(tmp_path):
    path = tmp_path / f"{_going(tmp_path)}.jsonl"
    row = {"step": 50, "actor/grad_norm": "nan", "eval/test/pass@1": "nan", "train/reward_mean": 0.5}
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    text = _shown(tmp_path, "--once")[1]
    assert "NaN or infinite" in text and "test -" in text


def test_many_runs_are_a_table_and_the_rest_is_counted(tmp_path):
    for seed in range(15):
        _going(tmp_path, seed=seed)
    text = _shown(tmp_path, "--once", height=40)[1]
    assert "15 going on; 12 of 15 shown" in text and text.count("40/100") >= 12 and len(text.splitlines()) <= 40


def test_no_run_and_unknown_runs_end_in_a_sentence(tmp_path, capsys):
    assert _shown(tmp_path, "--once")[0] == 2
    assert "no run in" in capsys.readouterr().err
    _going(tmp_path)
    with pytest.raises(UserError, match="there is no run absent"):
        Looker(tmp_path, ["absent"]).look()
    assert _shown(tmp_path, "--once", "--every", "0")[0] == 2


def test_a_terminal_without_unicode_gets_plain_signs(tmp_path):
    _going(tmp_path)
    status, text = _shown(tmp_path, "--once", encoding="ascii")
    assert status == 0 and "*" in text and "40/100 ##" in text


def test_it_refreshes_until_ctrl_c(tmp_path):
    """In a real terminal: a pseudo-terminal of its own."""
    name = _going(tmp_path)
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "Verl.analysis.live.cli", "--result", str(tmp_path), "--every", "0.1"],
        stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=os.environ | {"TERM": "xterm"}, close_fds=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell starts a job with &
    )  # fmt: skip
    os.close(follower)

    def read_until(wanted):
        seen, end = b"", time.monotonic() + 30
        while wanted not in seen and time.monotonic() < end:
            seen += os.read(leader, 65536)
        return seen

    assert b"40/100" in read_until(b"40/100")
    with open(tmp_path / f"{name}.jsonl", "a") as file:
        file.write(json.dumps({"step": 60, "train/reward_mean": 0.5}) + "\n")
    assert b"60/100" in read_until(b"60/100")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    os.close(leader)


def test_chart_puts_points_where_they_belong():
    lines = [line.plain for line in chart([Series("x", "", [(0, 0.0), (10, 1.0)])], width=25, height=4, end=10)]
    assert lines[0].startswith("1.0 ") and lines[3].startswith("0.0 ") and lines[-1].endswith("step 10")
    assert lines[0][-1] != "\u2800" and lines[3][5] != "\u2800"  # from the lower left to the upper right
    assert lines[0][5] == "\u2800" and lines[3][-1] == "\u2800"
    assert chart([Series("x", "", [(0, math.nan)])], 25, 4, 10) == []


def test_sparkline_by_hand():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█" and sparkline([1, math.nan, 3], 3) == "▁ █"
    assert sparkline([2, 2], 5) == "▄▄" and sparkline([], 5) == "" and sparkline([math.inf], 5) == ""
