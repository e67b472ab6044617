"""How runs begin and end: stopped and resumed, started afresh, cut by a full disk, failed by their rewards."""

import json
import os
import pickle
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from tests.runs.harness import STEPS, Result, paused_after, wait_for
from Verl import doctor
from Verl.analysis.runs.table import load_runs

pytestmark = pytest.mark.slow

NO_EVALUATION = ["trainer.test_freq=-1", "evaluation.val_freq=-1"]


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def steps_saved(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in (folder / "checkpoints").glob("global_step_*"))


def ended(process: subprocess.Popen, seconds: float = 25.0) -> str:
    """The output of a process after a signal to stop; a busy machine gets some seconds more than the run allows itself."""
    output, _ = process.communicate(timeout=seconds)
    return output


# Somebody's cluster and token, a home that can't be written, a proxy: nothing of a run's.
FOREIGN = {
    "RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_TOKEN": "somebody's", "HOME": "/proc/nowhere", "HTTP_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "socks5h://127.0.0.1:1",
}  # fmt: skip


@dataclass
class Seen:
    """What could be seen of a run while it went on."""

    listening: set[str]
    priorities: set[int]
    waits: set[str]
    private: list[int]  # permissions of the folder of its Ray, and of the token
    called_dead: list[int]  # processes that the doctor says a killed run left behind


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    return []


def look_at(mini, process: subprocess.Popen) -> Seen:
    tree = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in tree if "ray::" in one.cmdline()[0]]
    assert workers
    raylet = next(one for one in tree if one.name() == "raylet")
    environment = raylet.environ()  # as theirs, which their titles have overwritten
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    listed = " ".join(one.text for one in doctor.locks()).split()
    return Seen(
        mini.listening(process), {one.nice() for one in workers}, {environment["GOMP_SPINCOUNT"]},
        [path.stat().st_mode & 0o777 for path in (token.parent, token)], [one.pid for one in tree if str(one.pid) in listed],
    )  # fmt: skip


@pytest.fixture(scope="module")
def stopped(mini, seen) -> Result:
    """A run without an evaluation before training and without regular checkpoints, that SIGTERM met after step 3."""
    settings = ["trainer.val_before_train=False", "trainer.save_freq=-1", "seed=0"]
    temporary = mini.folder / ("long" * 30)  # below which no socket has a place
    temporary.mkdir()
    process = mini.start("grpo", "stopped", *settings, **FOREIGN, TMPDIR=str(temporary))
    jsonl = mini.folder / "result/stopped_seed0.jsonl"
    with paused_after(3, process, jsonl):
        seen.append(look_at(mini, process))
        process.send_signal(signal.SIGTERM)
    result = mini.result("stopped", process.wait(timeout=25), ended(process))
    assert not mini.wait_until_clean(), "processes were left behind"
    return result


def test_a_preempted_run_saves_its_step_and_says_so(mini, stopped):
    assert stopped.status == 130, stopped.output
    assert "SIGTERM: stopping after this step" in stopped.output
    last = stopped.records[-1]["step"]
    assert steps_saved(stopped.folder) == [last] and last < STEPS
    assert f"the same command goes on from step {last}" in stopped.output
    assert record(stopped.folder)["status"] == "interrupted"
    assert not (mini.folder / "result/.stopped_seed0.lock").exists()


def test_a_run_listens_on_this_machine_only_and_waits_in_its_sleep(mini, stopped, seen):
    """In an environment in which Ray would join a foreign cluster, or find no place for its token."""
    assert seen[0].listening and seen[0].listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert seen[0].private == [0o700, 0o600] and not seen[0].called_dead
    assert seen[0].priorities == {os.nice(0)} and seen[0].waits == {"3000"}
    assert not list(Path(mini.ray).glob("bandit-*"))


def test_the_same_command_goes_on_and_no_evaluation_is_lost(mini, stopped, base_line):
    shutil.copytree(stopped.folder, mini.folder / "elsewhere/stopped_seed0")
    resumed = mini.hosted("grpo", "stopped", "trainer.val_before_train=False", "trainer.save_freq=-1")
    assert resumed.status == 0, resumed.output
    # The same as the run that was never stopped, but for the evaluation before training: those at steps 5 and 10 are there.
    assert resumed.metrics() == base_line.metrics()[1:]
    assert record(resumed.folder)["status"] == "finished"
    again = mini.hosted("grpo", "stopped", "trainer.val_before_train=False", "trainer.save_freq=-1")
    assert again.status == 0 and "finished already" in again.output


def test_a_run_goes_on_from_a_checkpoint_typed_anyhow_and_needs_no_evaluation(mini, stopped, base_line, monkeypatch):
    """The path alone, with a slash, from the user's folder; no evaluation asked for; and the last step is by a budget."""
    step = stopped.records[-1]["step"]
    home = mini.folder / "elsewhere"
    if not home.exists():  # this test alone
        shutil.copytree(stopped.folder, home / "stopped_seed0")
    monkeypatch.setenv("BANDIT_CWD", str(home))
    budget = base_line.records[step + 1]["ledger/total_gradient_samples"]
    command = mini.command("grpo", "onward", *NO_EVALUATION, f"budget.gradient_samples={budget:.0f}", "seed=0")
    command += [f"trainer.resume_from_path=stopped_seed0/checkpoints/global_step_{step}/", "evaluation.train_questions=8"]
    done = subprocess.run(command, cwd=mini.folder.parent, env=mini.environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = mini.result("onward", 0, done.stdout)
    expected = {key: value for key, value in base_line.metrics()[step + 1].items() if not key.startswith("eval/")}
    assert result.metrics() == [expected]
    assert "budget.gradient_samples=" in done.stdout and steps_saved(result.folder) == [step + 1]
    assert record(result.folder)["status"] == "finished"


def test_a_fresh_start_sets_aside_what_was_there(mini, stopped, base_line):
    """The last of this file's tests on that run, which it moves away."""
    before = mini.result("stopped", 0, "")
    steps = steps_saved(before.folder)
    result = mini.hosted("grpo", "stopped", "trainer.total_training_steps=1", "trainer.resume_mode=disable", *NO_EVALUATION)
    assert result.status == 0, result.output
    assert steps and steps_saved(result.folder) == [1]
    expected = {key: value for key, value in base_line.metrics()[1].items() if not key.startswith("eval/")}
    assert result.metrics() == [expected]
    aside = mini.folder / "result/before/stopped_seed0.1"
    assert aside.name in result.output and steps_saved(aside / "stopped_seed0") == steps
    kept = [json.loads(line) for line in (aside / "stopped_seed0.jsonl").read_text().splitlines()]
    assert kept == before.records and (aside / "stopped_seed0.log").is_file()
    # Nobody who reads the results meets it.
    named = {text.partition(":")[0] for text in load_runs(mini.folder / "result").problems}
    assert not named & {"before", aside.name}


HANGING = """
import pathlib, re
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    pathlib.Path(__file__).with_name("called").touch()
    return float(bool(re.match("(a+)+$", "a" * 60 + "b")))
"""


@pytest.mark.long
def test_a_run_whose_reward_hangs_can_be_stopped(mini):
    """The function holds the interpreter's lock for ever; and the run was started by a shell with SIGINT ignored."""
    folder = mini.folder / "hanging"
    folder.mkdir()
    (folder / "hanging.py").write_text(HANGING)
    settings = [f"reward.custom_reward_function.path={folder}/hanging.py", "reward.timeout_seconds=3600", "seed=0"]
    process = subprocess.Popen(
        mini.command("grpo", "hanging", *settings), env=mini.environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    wait_for((folder / "called").exists, process)
    process.send_signal(signal.SIGINT)
    output = ended(process)
    assert process.returncode == 130, output
    assert record(mini.folder / "result/hanging_seed0")["status"] == "interrupted" and "SIGINT" in output
    assert not mini.wait_until_clean(), "processes were left behind"


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """To the last block, in large pieces first: the run goes on meanwhile."""
    filler = disk / "filler"
    with open(filler, "wb") as file:
        for size in (1 << 22, 1 << 12):
            with suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(size))
    return filler


def test_a_full_disk_is_said_and_costs_nothing(mini, small_disk, base_line):
    settings = [f"run.result_dir={small_disk}", "seed=0"]
    process = mini.start("grpo", "full", *settings)
    jsonl, folder = small_disk / "full_seed0.jsonl", small_disk / "full_seed0"
    with paused_after(3, process, jsonl):
        filler = fill(small_disk)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "free some space and start the same command again" in output
    assert record(folder)["status"] == "failed"

    on_full = subprocess.run(mini.command("grpo", "full", *settings), env=mini.environment(), text=True, capture_output=True)
    assert on_full.returncode == 1 and "is full: free some space" in on_full.stdout + on_full.stderr

    filler.unlink()
    resumed = subprocess.run(mini.command("grpo", "full", *settings), env=mini.environment(), text=True, capture_output=True)
    assert resumed.returncode == 0, resumed.stdout
    records = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert Result(0, "", folder, records).metrics() == base_line.metrics()


@pytest.mark.long
@pytest.mark.parametrize("file", ["actor/extra_state_*.pt", "data.pt"])
def test_no_code_of_somebody_elses_checkpoint_runs_in_a_resume(mini, stopped, tmp_path, file):
    from tests.adapter.test_safe_load import Attack

    step, mark = steps_saved(stopped.folder)[-1], tmp_path / "ran"
    pickle.loads(pickle.dumps(Attack(mark)))
    assert mark.exists()  # so would it be where a resume took the file as a pickle
    mark.unlink()
    checkpoint = shutil.copytree(stopped.folder / f"checkpoints/global_step_{step}", tmp_path / f"global_step_{step}")
    (path,) = checkpoint.glob(file)
    torch.save({**torch.load(path, weights_only=False), "more": Attack(mark)}, path)
    result = mini.run("grpo", f"attacked-{path.stem}", *NO_EVALUATION, f"trainer.resume_from_path={checkpoint}")
    assert result.status in (1, 2) and "weights_only" in result.output, result.output
    assert not mark.exists() and not result.records
