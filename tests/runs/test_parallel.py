"""One run in two data-parallel processes (gloo on a CPU, as NCCL on GPUs): the same arm, the same responses."""

import signal

import pytest

from tests.runs.harness import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.long]

TWO = "trainer.n_gpus_per_node=2"


@pytest.fixture(scope="module")
def cut(mini):
    """A kill -9 after six steps; the addresses on which the run listened before."""
    listening: set[str] = set()
    status = mini.kill_after("grpo", "two", 6, TWO, look=lambda process: listening.update(mini.listening(process)))
    assert status == -signal.SIGKILL
    assert not mini.wait_until_clean(), "kill -9 left Ray processes behind"
    return listening


def test_its_processes_listen_on_this_machine_only(cut):
    assert cut and cut <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_another_number_of_processes_does_not_go_on(mini, cut):
    """A checkpoint is in as many parts."""
    refused = mini.run("grpo", "two")
    assert refused.status == 2 and "gpus" in refused.output, refused.output


def test_two_processes_train_as_one_and_go_on_after_kill_9(mini, cut, base_line):
    result = mini.run("grpo", "two", TWO)
    assert result.status == 0, result.output
    assert [record["step"] for record in result.records] == list(range(STEPS + 1))
    place = ["step", "index", "rollout"]  # in which order a step's responses are trained depends on how they are shared out
    ours, theirs = (one.samples().sort_values(place) for one in (result, base_line))
    assert ours[place].values.tolist() == theirs[place].values.tolist()
    assert list(ours.text) == list(theirs.text) and list(ours.reward) == list(theirs.reward)
    assert list(result.evaluation(STEPS).text) == list(base_line.evaluation(STEPS).text)
    for mine, other in zip(result.records[1:], base_line.records[1:], strict=True):
        for key in ("actor/loss", "actor/kl_loss", "actor/ppo_kl"):  # apart by 1e-7 at most when it was written
            assert mine[key] == pytest.approx(other[key], abs=1e-5), (key, mine["step"])
        for key in ("actor/entropy", "actor/grad_norm"):  # by 4e-6 of it
            assert mine[key] == pytest.approx(other[key], rel=1e-4), (key, mine["step"])
        assert mine["training/rollout_probs_diff_mean"] < 1e-6  # both servers have what was trained
    parts = {path.name for path in (result.folder / f"checkpoints/global_step_{STEPS}/actor").glob("model_*")}
    assert parts == {f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)}
