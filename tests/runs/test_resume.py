"""A run that was killed and resumed is the run that was not: same lines, same weights, same histories, to the bit."""

import json
import signal
from functools import cache

import pytest
import torch

from tests.runs.harness import STEPS, Result

pytestmark = pytest.mark.slow

ARMS = {
    "grpo": ("grpo", ["actor_rollout_ref.rollout.n=2"]),
    "onerpo": ("bandit", ["algorithm.adv_estimator=onerpo", "data.extra_sampling_size=2"]),
    # Its state holds windows, averages and Beta trackers, whichever is read; test_features.py has the window.
    "beta": ("replay", ["algorithm.replay.baseline=beta", "algorithm.replay.include_current=False", "data.window_size=4",
                        "actor_rollout_ref.rollout.n=2", "algorithm.norm_adv_by_std_in_grpo=False",
                        "evaluation.final_samples=3"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(mini):
    """The whole run of an arm, trained when it is first asked for."""

    @cache
    def run(arm: str) -> Result:
        algorithm, overrides = ARMS[arm]
        result = mini.hosted(algorithm, f"whole-{arm}", *overrides)
        assert result.status == 0, result.output
        return result

    return run


@pytest.mark.parametrize("arm", [pytest.param("onerpo", marks=pytest.mark.long), "beta"])
def test_resumed_is_uninterrupted(mini, uninterrupted, arm):
    algorithm, overrides = ARMS[arm]
    whole = uninterrupted(arm)
    # Killed right after line 6: its checkpoint is being written, or not yet, or done. Epochs end at 3, 6 and 9.
    assert mini.kill_after(algorithm, f"{arm}-cut", 6, *overrides) == -signal.SIGKILL
    assert not mini.wait_until_clean(), "kill -9 left Ray processes behind"
    resumed = mini.hosted(algorithm, f"{arm}-cut", *overrides)
    assert resumed.status == 0, resumed.output
    assert [record["step"] for record in resumed.records] == list(range(STEPS + 1))
    assert_same(resumed, whole)


def assert_same(resumed, whole):
    assert resumed.metrics() == whole.metrics()
    assert resumed.samples().equals(whole.samples())
    assert resumed.state() == whole.state()
    assert resumed.evaluation(STEPS).equals(whole.evaluation(STEPS))  # the last one, of several answers each with "beta"
    ours, theirs = resumed.weights(), whole.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_cut_short_is_not_resumed_from(mini, uninterrupted):
    """What a kill during a save leaves is a .partial folder: the checkpoint before it is the one that counts. Loggers of
    verl's have each step once all the same."""
    algorithm, overrides = ARMS["grpo"]
    overrides = [*overrides, "trainer.logger=[console,tensorboard,file]"]
    assert mini.kill_after(algorithm, "partial", 5, *overrides) == -signal.SIGKILL
    checkpoints = mini.folder / "result/partial_seed0/checkpoints"
    newest = max(int(path.name.split("_")[-1]) for path in checkpoints.glob("global_step_*"))
    assert newest in (4, 6)  # the run is held after step 5 is logged: the next may be there, or half of it
    torn = checkpoints / f".partial/global_step_{newest + 2}/actor"
    torn.mkdir(parents=True, exist_ok=True)
    (torn / "model_world_size_1_rank_0.pt").write_bytes(b"half")
    (checkpoints / "global_step_8").mkdir()  # a folder without the file that is written last
    resumed = mini.hosted(algorithm, "partial", *overrides)
    assert resumed.status == 0, resumed.output
    assert [record["step"] for record in resumed.records] == list(range(STEPS + 1))
    assert len(list(checkpoints.glob("global_step_*"))) == 3  # max_actor_ckpt_to_keep
    assert not (checkpoints / ".partial").exists()
    assert_same(resumed, uninterrupted("grpo"))
    assert_each_step_once(resumed)


def assert_each_step_once(resumed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed.folder / "tensorboard"))
    events.Reload()
    key = "train/reward_mean"
    logged = [(event.step, pytest.approx(event.value)) for event in events.Scalars(key)]
    assert logged == [(record["step"], record[key]) for record in resumed.records[1:]]
    lines = [json.loads(line) for line in (resumed.folder / "verl_file_logger.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(STEPS + 1)]


@pytest.mark.long
def test_ctrl_c_ends_cleanly(mini):
    status = mini.kill_after("grpo", "ctrl-c", 2, how=signal.SIGINT)
    assert status == 130
    assert '"status": "interrupted"' in (mini.folder / "result/ctrl-c_seed0/run.json").read_text()
    assert not mini.wait_until_clean(), "Ctrl-C left Ray processes behind"


def test_a_finished_run_is_not_run_again_and_not_overwritten(mini, base_line):
    again = mini.run("grpo", "base")
    assert again.status == 0 and "finished already" in again.output
    changed = mini.run("grpo", "base", "actor_rollout_ref.actor.optim.lr=1e-4")
    assert changed.status == 2 and "exists with other settings (actor_rollout_ref.actor.optim.lr" in changed.output
    assert again.records == base_line.records
