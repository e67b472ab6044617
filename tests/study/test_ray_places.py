"""One run per GPU of a Ray cluster, on a cluster whose two GPUs are a declaration."""

import pytest
from study_helpers import calls, job, started

from Verl.study.jobs import Table
from Verl.study.places import RayPlaces
from Verl.study.runner import Runner


@pytest.mark.slow
def test_ray_places_one_run_per_gpu(tmp_path, fake):
    import ray

    if ray.is_initialized():
        ray.shutdown()
    ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    places = RayPlaces(None)
    try:
        assert places.count == 2
        queue = [job("grpo_0032_1", seed, steps=3, result_dir=tmp_path) for seed in (0, 1, 2)]
        table = Table(tmp_path / "study_ray.json", "ray", "tiny_arith", queue)
        environment = {"FAKE_SECONDS": "1", "FAKE_FAIL": f"{queue[1].run}:1"}
        runner = Runner(table, places, tmp_path, lambda one: [*fake, one.script, *one.overrides], environment,
                        lambda line: None, poll=0.05)  # fmt: skip
        assert runner.run()
    finally:
        places.close()
    assert sorted(started(tmp_path)) == sorted([*(one.run for one in queue), queue[1].run])  # one retry, by the runner
    going, most = 0, 0
    for event, run, step, _ in calls(tmp_path):
        over = event == "end" or (event == "step" and run == queue[1].run and step == "1")
        going += (event == "start") - over
        most = max(most, going)
    assert most == 2
