"""One run per GPU of a Ray cluster, on a cluster whose two GPUs are a declaration."""

import signal
import sys

import pytest
from study_helpers import calls, job, started, wait_for

from Verl.study.jobs import Table
from Verl.study.places import RayPlaces
from Verl.study.runner import StudyRunner


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
        environment = {"FAKE_TOGETHER": "2", "FAKE_FAIL": f"{queue[1].run}:1"}
        runner = StudyRunner(table, places, tmp_path, lambda one: [*fake, one.script, *one.overrides], environment,
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


# A trainer that needs a moment to end well: killed at once, it leaves no word.
_ENDS_WELL = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(number, frame):
    time.sleep(0.5)
    (folder / "stopped").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(folder / "started").touch()
time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_on_a_cluster_gets_a_signal_to_stop_and_has_time_to(tmp_path):
    """Also where a shell started all of it with SIGINT ignored, as with `&`."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    places = RayPlaces(None)
    try:
        place = places.start([sys.executable, "-c", _ENDS_WELL, str(tmp_path)], {}, tmp_path / "console")
        wait_for((tmp_path / "started").exists, seconds=120)  # Ray starts its worker with a niceness of 15
        place.ask_to_stop()
        wait_for(lambda: place.poll() is not None, seconds=120)
        place.kill()
    finally:
        signal.signal(signal.SIGINT, before)
        places.close()
    assert (tmp_path / "stopped").exists()
