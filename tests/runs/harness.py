"""Whole runs of the trainers on a mini pair: a random two-layer model, 48 sums, and a reward that such a model earns.

A random model never gets a sum right, and a reward of 0 trains nothing; so the mini pair pays for the parity of the
first token, by a custom reward function, which also tests that path.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from Verl.study.hosts import HostedPlaces
from Verl.trainer.run_log import TIMING_PREFIXES

ROOT = Path(__file__).resolve().parents[2]
STEPS = 10
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(len(solution_str) > 0 and ord(solution_str[0]) % 2 == 1)
"""


@dataclass
class Result:
    """A finished process and what it left."""

    status: int
    output: str
    folder: Path
    records: list[dict] = field(default_factory=list)

    def metrics(self, leave_out: tuple[str, ...] = ()) -> list[dict]:
        """The jsonl without timings and without the named prefixes."""
        skip = TIMING_PREFIXES + leave_out + ("actor/perf/",)
        return [{k: v for k, v in record.items() if not k.startswith(skip)} for record in self.records]

    def weights(self, step: int = STEPS) -> dict[str, torch.Tensor]:
        path = self.folder / f"checkpoints/global_step_{step}/actor/model_world_size_1_rank_0.pt"
        state = torch.load(path, weights_only=False)
        return {k: v.to_local() if hasattr(v, "to_local") else v for k, v in state.items()}

    def log(self) -> str:
        return self.folder.with_name(self.folder.name + ".log").read_text()

    def state(self, step: int = STEPS) -> dict:
        state = json.loads((self.folder / f"checkpoints/global_step_{step}/bandit_state.json").read_text())
        state["ledger"].pop("hours")
        return state

    def samples(self):
        import pandas as pd

        return pd.concat([pd.read_parquet(path) for path in sorted((self.folder / "samples").glob("*.parquet"))])

    def evaluation(self, step: int):
        import pandas as pd

        return pd.read_parquet(self.folder / "evaluations" / f"step_{step:06d}.parquet")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 300.0) -> None:
    """Until something is so, while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} s"
        time.sleep(0.02)


@contextmanager
def paused_after(step: int, process: subprocess.Popen, jsonl: Path) -> Iterator[None]:
    """Holds a run and all its processes once the line of `step` is in its jsonl, and lets them go on after the block.

    So a run of some seconds is not over before the test has done to it what the test is about.
    """
    wait_for(lambda: jsonl.is_file() and f'"step": {step},' in jsonl.read_text(), process)
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.suspend()
    try:
        yield
    finally:
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def _result(status: int, output: str, folder: Path) -> Result:
    jsonl = folder.with_name(folder.name + ".jsonl")
    records = [json.loads(line) for line in jsonl.read_text().splitlines()] if jsonl.is_file() else []
    return Result(status, output, folder, records)


class Mini:
    """Starts runs of the mini pair under one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        _build_model(folder / "model")
        _build_data(folder / "data")
        (folder / "reward.py").write_text(REWARD)
        # Short, because Ray's sockets lie below it and a socket's path has at most 107 characters.
        self.ray = tempfile.mkdtemp(prefix="r", dir="/tmp")
        self._host_ray = tempfile.mkdtemp(prefix="h", dir="/tmp")  # not the same: its processes stay from run to run
        self._host = HostedPlaces(1, lambda text: None)

    def command(self, algorithm: str, name: str, *overrides: str) -> list[str]:
        f = self.folder
        return [
            sys.executable, "-m", f"Verl.trainer.main_ppo_{algorithm}",
            f"data.train_files={f}/data/train.parquet", f"data.val_files={f}/data/validation.parquet",
            f"data.test_files={f}/data/test.parquet", f"actor_rollout_ref.model.path={f}/model",
            f"reward.custom_reward_function.path={f}/reward.py", f"run.result_dir={f}/result", f"run.figure_dir={f}/figure",
            f"run.arm={name}", "data.max_prompt_length=24", "data.max_response_length=12", "data.train_batch_size=16",
            "actor_rollout_ref.rollout.n=1", "actor_rollout_ref.actor.use_kl_loss=True",
            "actor_rollout_ref.actor.optim.lr=1e-3", f"trainer.total_training_steps={STEPS}", "trainer.save_freq=2",
            "trainer.test_freq=5", "evaluation.val_freq=5", "trainer.total_epochs=50",
            "trainer.max_actor_ckpt_to_keep=3", *overrides, "trainer.device=cpu",
            "@",  # nothing after it: these are the settings of a script, so that the name stays
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": self.ray, "BANDIT_THREADS": "1"}

    def start(self, algorithm: str, name: str, *overrides: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(algorithm, name, *overrides), cwd=ROOT, env=self.environment() | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, algorithm: str, name: str, *overrides: str, seed: int = 0) -> Result:
        process = self.start(algorithm, name, *overrides, f"seed={seed}")
        output, _ = process.communicate(timeout=600)
        return self.result(name, process.returncode, output, seed)

    def script(self, name: str, algorithm: str, *overrides: str) -> Path:
        """What `bash` prints of it is what a run's script prints for the study runner."""
        _, _, module, *settings = self.command(algorithm, name, *overrides)
        path = self.folder / f"run_{name}.sh"
        path.write_text(f"printf '%s\\n' {shlex.join([module, *settings])}\n")
        return path

    def hosted(self, algorithm: str, name: str, *overrides: str, seed: int = 0) -> Result:
        """`run` in processes that stay from run to run (Verl/study/hosts.py), as the study runner starts it: a tenth of the
        time. For what a run computes and writes, not for how it starts and ends; test_host.py says that it is the same."""
        script, console = self.script(name, algorithm, *overrides, f"seed={seed}"), self.folder / f"{name}.console"
        # A host is for one environment, and the name of the test is in it.
        environment = self.environment() | {"RAY_TMPDIR": self._host_ray, "PYTHONPATH": "", "PYTEST_CURRENT_TEST": ""}
        console.unlink(missing_ok=True)
        run = self._host.start(["bash", str(script)], environment, console)
        deadline = time.monotonic() + 600
        while (status := run.poll()) is None:
            assert time.monotonic() < deadline, console.read_text()
            time.sleep(0.02)
        return self.result(name, status, console.read_text(), seed)

    def together(self, group: str, runs: dict[str, tuple[str, list[str]]]) -> dict[str, Result]:
        """`hosted`, each of them, by name; the run's own name has the group before it."""
        return {name: self.hosted(algorithm, f"{group}-{name}", *overrides) for name, (algorithm, overrides) in runs.items()}

    def result(self, name: str, status: int, output: str, seed: int = 0) -> Result:
        return _result(status, output, self.folder / "result" / f"{name}_seed{seed}")

    def kill_after(
        self, algorithm: str, name: str, step: int, *overrides: str, how: int = signal.SIGKILL,
        look: Callable[[subprocess.Popen], None] = lambda process: None,
    ) -> int:  # fmt: skip
        """Starts a run and sends it a signal once the line of `step` is in its jsonl; the process's status.

        Args:
            look: called right before.
        """
        process = self.start(algorithm, name, *overrides, "seed=0")
        with paused_after(step, process, self.folder / "result" / f"{name}_seed0.jsonl"):
            look(process)
            process.send_signal(how)
        process.communicate(timeout=120)
        return process.returncode

    @staticmethod
    def listening(process: subprocess.Popen) -> set[str]:
        """Addresses on which a process and all below it listen."""
        found = set()
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                found |= {c.laddr.ip for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
            except psutil.NoSuchProcess:
                continue
        return found

    def leftovers(self) -> list[str]:
        """Processes that still belong to a run of this pair: they carry its RAY_TMPDIR."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            try:
                if process.pid != os.getpid() and process.environ().get("RAY_TMPDIR") == self.ray:
                    found.append(" ".join(process.info["cmdline"] or [])[:120])
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def wait_until_clean(self, seconds: float = 30) -> list[str]:
        deadline = time.monotonic() + seconds
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def close(self) -> None:
        self._host.close()
        for folder in (self.ray, self._host_ray):
            shutil.rmtree(folder, ignore_errors=True)


def _build_model(folder: Path) -> None:
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from Verl.base_models.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(64)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _build_data(folder: Path) -> None:
    from Verl.data.schema import make_row, write_split_set
    from Verl.reward.sources import CHAIN_SUM

    def rows(split: str, first: int, count: int) -> list[dict]:
        return [
            make_row(
                data_source=CHAIN_SUM, question=f"{a}+{b}-{c}=", prompt=f"{a}+{b}-{c}=", ability="arithmetic",
                ground_truth=str(a + b - c), split=split, index=i, answer=str(a + b - c),
            )
            for i in range(count)
            for a, b, c in [((first + i) // 64, (first + i) // 8 % 8, (first + i) % 8)]
        ]  # fmt: skip

    # 48 questions at 16 a step: an epoch ends every three steps.
    write_split_set(
        folder,
        {"train": rows("train", 0, 48), "validation": rows("validation", 100, 16), "test": rows("test", 200, 24)},
        source="mini",
        settings={},
    )
