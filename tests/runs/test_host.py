"""Runs that share a host, as the study runner starts them, against the same runs in processes of their own: every byte."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.study_throughput import tensors
from Verl.study.hosts import HostedPlaces
from Verl.study.jobs import Job, Table
from Verl.study.runner import StudyRunner
from Verl.trainer.run_log import TIMING_PREFIXES

pytestmark = pytest.mark.slow

FAILING = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return 1 / len([])
"""
# In this order: the first one's host dies with it; what the others leave in theirs must not reach the last, the base line.
BEFORE = {
    "failing": ("grpo", ["reward.custom_reward_function.path={folder}/always_failing.py", "trainer.val_before_train=False"]),
    "onerpo": ("bandit", ["algorithm.adv_estimator=onerpo", "data.extra_sampling_size=2", "seed=3"]),
    "asyttgrpo": ("replay", ["algorithm.adv_estimator=asyttgrpo", "data.window_size=4", "actor_rollout_ref.rollout.n=2"]),
    "without-kl": ("grpo", ["actor_rollout_ref.actor.use_kl_loss=False"]),  # other roles, so a worker of its own
}
SHORT = ["trainer.total_training_steps=2", "trainer.test_freq=2", "trainer.save_freq=-1", "evaluation.val_freq=-1"]


def written(folder: Path) -> dict[str, object]:
    """Everything that a run writes and that must be the same twice: contents by name."""
    lines = [json.loads(line) for line in folder.with_name(f"{folder.name}.jsonl").read_text().splitlines()]
    skip = (*TIMING_PREFIXES, "actor/perf/")
    found: dict[str, object] = {"jsonl": [{k: v for k, v in line.items() if not k.startswith(skip)} for line in lines]}
    for path in sorted(folder.rglob("*")):
        # extra_state has Python's and numpy's random states of a worker, which draws from neither: never the same twice.
        if path.suffix in (".parquet", ".pt") and "extra_state" not in path.name:
            content = path.read_bytes() if path.suffix == ".parquet" else tensors(path)
            found[str(path.relative_to(folder))] = content
    return found


@pytest.fixture(scope="module")
def hosted(mini):
    """The result folder, and what the runner said."""
    (mini.folder / "always_failing.py").write_text(FAILING)
    runs = {name: (algorithm, [*SHORT, *overrides]) for name, (algorithm, overrides) in BEFORE.items()} | {"base": ("grpo", [])}
    jobs = []
    for name, (algorithm, overrides) in runs.items():
        seed = 3 if "seed=3" in overrides else 0
        settings = [text.format(folder=mini.folder) for text in [*overrides, f"seed={seed}", "run.result_dir={folder}/hosted"]]
        path = mini.script(name, algorithm, *settings)
        jobs.append(Job(f"{name}_seed{seed}", name, seed, str(path), [], "", 10 if name == "base" else 2, 1.0))
    folder, said = mini.folder / "hosted", []
    table, places = Table(folder / "study_host.json", "host", "mini", jobs), HostedPlaces(1, said.append)
    environment = {name: value for name, value in mini.environment().items() if name != "PYTHONPATH"}
    try:
        StudyRunner(table, places, folder, lambda job: ["bash", job.script], environment, said.append).run()
    finally:
        places.close()
    return folder, said, {job.run: job for job in jobs}


def test_a_run_after_others_is_the_run_alone_to_the_byte(hosted, base_alone):
    folder, said, _ = hosted
    ours, alone = written(folder / "base_seed0"), written(base_alone.folder)
    assert ours.keys() == alone.keys(), said
    assert [name for name in alone if ours[name] != alone[name]] == []
    assert any(name.endswith(".pt") for name in alone)


def test_each_run_has_its_own_log_and_error(hosted):
    folder, said, jobs = hosted
    assert {run for run, job in jobs.items() if job.state != "done"} == {"failing_seed0"}, said
    failing = jobs["failing_seed0"]
    assert (failing.state, failing.exit_status, failing.attempts) == ("failed", 1, 2)
    assert "none of the 16 rewards could be computed (ZeroDivisionError: division by zero)" in failing.reason
    assert json.loads((folder / "failing_seed0/run.json").read_text())["status"] == "failed"
    for run in jobs:
        log = (folder / f"{run}.log").read_text()
        assert f"/{folder.name}/{run}.jsonl" in log
        assert ("return 1 / len([])" in log) == (run == "failing_seed0")
        others = [other for other in jobs if other != run]
        assert not any(f"/{folder.name}/{other}.jsonl" in log for other in others)
    assert sum("its host ended with it" in line for line in said) == 2
