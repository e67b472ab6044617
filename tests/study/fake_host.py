"""A host as it is, in which a run takes no time and leaves its marks on the process (for test_hosts.py).

FAKE_END="<run>:<how>" ends that run by a status, or by `kill`.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

from fake_trainer import describe, note, train

from Verl.study import host_process
from Verl.trainer.interruption import REQUEST


def main(algorithm, arguments, within):
    settings = dict(text.split("=", 1) for text in arguments if text != "@")
    folder = Path(settings["run.result_dir"])
    batch, rollouts, seed = settings["data.train_batch_size"], settings["actor_rollout_ref.rollout.n"], settings["seed"]
    run = f"grpo_{int(batch):04d}_{rollouts}_tiny_arith_seed{seed}"
    REQUEST.install()
    print(f"said by {run} in {os.getcwd()}", flush=True)
    note(folder, "found", run, 0)
    (folder / f"{run}.found").write_text(json.dumps({
        "argv": sys.argv[1:], "variables": dict(os.environ), "by": REQUEST.by, "input": sys.stdin.read(),
    }))  # fmt: skip
    os.environ["LEFT_BY_A_RUN"] = "1"
    sys.argv, sys.stdout = ["changed"], sys.stderr
    os.chdir("/")
    random.seed(0)
    warnings.simplefilter("error")
    wanted, _, how = os.environ.get("FAKE_END", "").partition(":")
    if wanted == run:
        describe(folder, run, "running")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        describe(folder, run, "failed", reason="the disk is full")
        sys.exit(int(how))
    try:
        train(folder, run, int(settings["trainer.total_training_steps"]))
    except KeyboardInterrupt:
        describe(folder, run, "interrupted", reason="stopped")
        time.sleep(0.2)
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    host_process.launch.main = main
    host_process.main()
