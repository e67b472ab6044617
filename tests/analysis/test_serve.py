"""The report in a browser while runs go on: made anew when a run writes, for this machine alone, gone on Ctrl-C."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from simulated_runs import write_run

from Verl.analysis.report.build import main
from Verl.analysis.report.serve import Live
from Verl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_a_page_is_made_once_per_change_and_a_failure_keeps_the_last_one(tmp_path):
    pages = iter([UserError("no run <yet>"), "first", ValueError("half a file"), "second"])

    def build() -> str:
        page = next(pages)
        if isinstance(page, Exception):
            raise page
        return page

    live = Live(tmp_path, build)
    assert live.refresh() and "no run &lt;yet&gt;" in live.page and not live.refresh()
    for step, (page, said) in enumerate([("first", "made at"), ("first", "half a file"), ("second", "made at")], 2):
        (tmp_path / "a_seed0.jsonl").write_text("x" * step)
        assert live.refresh() and live.page == page and said in live.said and live.version == step
    assert not live.refresh()


@pytest.mark.parametrize("port, said", [("-1", "a port is a number"), ("70000", "a port is a number")])
def test_a_port_that_is_none_is_one_sentence(tmp_path, capsys, port, said):
    assert main(["--result", str(tmp_path), "--serve", port]) == 2
    assert said in capsys.readouterr().err


def test_a_taken_port_and_a_missing_folder_are_one_sentence(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--result", str(tmp_path), "--serve", str(taken.getsockname()[1])]) == 2
    assert "can't be had" in capsys.readouterr().err
    assert main(["--result", str(tmp_path / "absent"), "--serve", "0"]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_browser_here_sees_a_run_that_begins_and_nobody_else_does(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "Verl.analysis.report.build", "--result", str(tmp_path), "--serve", "0"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell starts a job with &
    )  # fmt: skip
    try:
        port = int(re.search(r"http://127.0.0.1:(\d+) ", process.stdout.readline())[1])

        def get(path: str, host: str = "localhost") -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path, headers={"Host": f"{host}:{port}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        assert 'src="report"' in get("/")[1]
        name = write_run(tmp_path, "grpo_0032_1", 0, steps=(0, 50, 100))
        end = time.monotonic() + 120
        while name not in get("/report")[1] and time.monotonic() < end:
            time.sleep(0.2)
        assert name in get("/report")[1] and json.loads(get("/version")[1])["version"] >= 1
        assert get("/report", host="evil.example")[0] == 403 and get("/../run.json")[0] == 404
        listening = [one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
