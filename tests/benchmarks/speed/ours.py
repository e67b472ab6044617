"""Our trainer on a work: a whole run of `python -m Verl.trainer.main_ppo_grpo`, read from the jsonl that it writes.

The hyperparameters are those of a script (`--print-args`); model, data, lengths and the number of steps are the work's, and
evaluation, checkpoints and samples are off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.speed.watch import Watched, watch
from tests.benchmarks.speed.work import ROOT, Work, prepare

PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")


def script_arguments(script: str, root: Path) -> tuple[str, list[str]]:
    """Entry point and overrides of a script of Running-Bash."""
    done = subprocess.run(
        ["bash", f"{root}/Running-Bash/{script}", "--print-args"], capture_output=True, text=True, check=True
    )
    module, *overrides = done.stdout.split("\n")[:-1]
    return module, [text for text in overrides if text != "@"]


def command(work: Work, steps: int, folder: Path, root: Path = ROOT) -> list[str]:
    """The run's command; `root` is the checkout whose product runs."""
    model, data, reward = prepare(work, rows=work.queries * (steps + 1))
    module, overrides = script_arguments(work.script, root)
    return [
        sys.executable, "-m", module, *overrides,
        f"actor_rollout_ref.model.path={model}", f"reward.custom_reward_function.path={reward}",
        f"data.train_files={data}/train.parquet", f"data.val_files={data}/validation.parquet",
        f"data.test_files={data}/test.parquet", f"data.train_batch_size={work.queries}",
        f"data.max_prompt_length={work.prompt}", f"data.max_response_length={work.response}",
        f"actor_rollout_ref.rollout.n={work.rollouts}", "actor_rollout_ref.rollout.ignore_eos=True",
        f"trainer.total_training_steps={steps + 1}", "trainer.total_epochs=1", "trainer.val_before_train=False",
        "trainer.test_freq=-1", "evaluation.val_freq=-1", "trainer.save_freq=-1", "samples.enable=False",
        "trainer.device=cpu", "run.arm=speed", f"run.result_dir={folder}", f"run.figure_dir={folder}",
        "@",  # nothing after it: these are the settings of a script, so that the name stays
    ]  # fmt: skip


def environment(root: Path, ray: str) -> dict[str, str]:
    """Ray gives its workers a nice value of 15; where anything else runs, that would slow us and no other contender."""
    return {**os.environ, "PYTHONPATH": str(root), "RAY_TMPDIR": ray, "RAY_worker_niceness": "0"}


def measure(work: Work, steps: int, root: Path = ROOT, calm: float = 1.0) -> dict:
    """Per-step seconds of every phase after one warm-up step, peak memory, start-up and what was asked."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as ray:
        folder = Path(folder)

        def first_line() -> bool:
            return any(path.stat().st_size for path in folder.glob("*.jsonl"))

        watched: Watched = watch(
            command(work, steps, folder, root),
            root,
            environment(root, ray),
            marks={"first step": first_line},
            calm=calm,
        )
        records = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        if watched.status or len(records) != steps + 1:
            raise SystemExit(
                f"our run ended with status {watched.status} after {len(records)} steps:\n{watched.tail()}"
            )
        described = json.loads(next(folder.glob("*/run.json")).read_text())
    want = work.response_tokens
    for record in records:
        if record["ledger/tokens_generated"] != want:
            raise SystemExit(f"a step generated {record['ledger/tokens_generated']} tokens, not the {want} of the work")
    rows = [{name: record[f"timing_s/{name}"] for name in ("step", *PHASES)} for record in records[1:]]
    return {
        "steps": {"ours": rows},
        "gigabytes": watched.gigabytes,
        "others": watched.others,
        "start": watched.marks["first step"] - records[0]["timing_s/step"],
        "versions": {name: described["versions"][name] for name in ("verl", "torch", "transformers", "ray")},
        "commit": described["commit"],
    }
