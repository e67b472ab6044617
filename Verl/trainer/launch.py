"""From a command line to a finished run: what the three entry points share.

The order is the point. Settings and data are checked first, without importing torch; then the run's folder is opened
and the console taken over; only then do verl and Ray start (task_runner.py).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT, cores, provenance
from Verl.errors import RunStopped, UserError, last_line
from Verl.files import write_atomic
from Verl.trainer import full_disk, identity, own_ray, preparation, published, run_folder
from Verl.trainer.best import VALIDATION
from Verl.trainer.console import Console
from Verl.trainer.data_checks import copies_in_words, count_copies
from Verl.trainer.interruption import REQUEST, STATUS
from Verl.trainer.memory_here import memory_by_plan
from Verl.trainer.naming import comparable, config_hash
from Verl.trainer.ppo.checkpoint_files import checkpoint_steps
from Verl.trainer.prompt_checks import check_prompts, notes
from Verl.trainer.run_config import prepare
from Verl.trainer.run_log import RunLog
from Verl.trainer.task_runner import InProcessRunner, set_environment, stop_ray
from Verl.trainer.verl_checks import check_with_verl
from Verl.trainer.where import where
from Verl.wording import duration

BAD_INPUT = 2  # exit status


class Within(Protocol):
    """What a run is carried out in, where that is not a process of its own (Verl/study/host_process.py)."""

    def begin(self, config: DictConfig) -> None:
        """Called before the run is opened; may leave by SystemExit."""

    def run(self, config: DictConfig, algorithm: str, run_log: RunLog) -> None:
        """As `InProcessRunner(...).run`; Ray goes on after a run that finished."""

    def draw(self, run: str, result_dir: str, figure_dir: str) -> tuple[str, str]:
        """(what the figure shows, or what went wrong)."""


def main(algorithm: str, arguments: list[str] | None = None, within: Within | None = None) -> None:
    """Entry point of main_ppo_<algorithm>. Exits with 0, 1 (the run stopped), 2 (bad input) or 130 (interrupted).

    Args:
        within: where the run is carried out, if its process is not its own.
    """
    parser = argparse.ArgumentParser(prog=f"Verl.trainer.main_ppo_{algorithm}", allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the config, start nothing")
    parser.add_argument("--where", metavar="KEY", help="say where the value of a key comes from, and stop")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides key=value; those after a lone @ are the user's own")
    options = parser.parse_args(arguments)
    scripted, user = _split(options.overrides)
    REQUEST.install()
    try:
        if options.where:
            print("\n".join(where(algorithm, scripted, user, options.where)))
            return
        if options.dry_run:
            _dry_run(*prepare(algorithm, scripted, user))
            return
        config, missing = prepare(algorithm, scripted, user, to_the_end=False, first_use=_prepare_here)
        if missing:
            raise UserError(missing[0])
        check_prompts(config)
        own_ray.check_start(config)
        if within is not None:
            within.begin(config)
        status = _run(config, algorithm, user, within)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted before the run began", file=sys.stderr)
        sys.exit(STATUS)
    sys.exit(status)


def _dry_run(config: DictConfig, missing: list[str]) -> None:
    """Everything that a run checks before it starts, and its config."""
    check_with_verl(config)
    if not missing:
        check_prompts(config)
    print(OmegaConf.to_yaml(config, resolve=True))
    for sentence in missing:
        print(f"not ready on this machine: {sentence}", file=sys.stderr)
    _say_memory(config)


def _say_memory(config: DictConfig) -> None:
    """The plan's memory against the GPU; a run that can't fit is refused before it costs an hour."""
    planned = memory_by_plan(config)
    if planned is not None:
        sentence, refusal = planned
        if refusal:
            raise UserError(refusal)
        print(sentence, file=sys.stderr)


def _split(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Overrides of the script and of the user; the scripts put a lone @ between them, so that a run can be named by
    what its user changed."""
    if "@" not in overrides:
        return [], overrides
    at = overrides.index("@")
    return overrides[:at], overrides[at + 1 :]


def _prepare_here(config: DictConfig) -> None:
    """Model and data, on first use. Their commands say what went wrong, and their status is ours."""
    if status := preparation.prepare(config):
        sys.exit(status)


# ---- the run's folder ---------------------------------------------------------------------------------------------


def _open_run(config: DictConfig) -> bool:
    """Makes sure that this run may start: what is there is the same run, unfinished, or is set aside.

    Returns:
        whether there is anything left to do.
    """
    folder, settings = Path(config.run.dir), config.trainer
    before = folder / "config.yaml"
    moved = {}
    if run_folder.fresh_start(config) or not folder.exists():
        from_checkpoint = settings.resume_mode == "resume_path"
        moved = (run_folder.begin_from_checkpoint if from_checkpoint else run_folder.set_aside)(config)
    elif before.is_file():
        old, new = (comparable(one, True) for one in (OmegaConf.load(before), OmegaConf.create(_recorded(config))))
        changed = sorted(key for key in set(old) | set(new) if old.get(key) != new.get(key))
        if changed:
            raise UserError(
                f"the run {config.run.name} exists with other settings ({', '.join(changed[:3])}"
                f"{', ...' if len(changed) > 3 else ''}): add run.variant=<a word>, or run.overwrite=true to start it again"
            )
        if settings.resume_mode == "resume_path":
            moved = run_folder.begin_from_checkpoint(config)
        if not moved:
            if run_folder.finished(folder, settings.total_training_steps, run_folder.ends_of(config)):
                then = identity.since_then(config)
                print(f"{config.run.name} is finished already{then}; run.overwrite=true starts it again", file=sys.stderr)
                return False
            run_folder.check_steps_left(config)
            identity.check_resume(config)
    if moved:
        aside = _short(str(next(iter(moved.values())).parent))
        print(f"what {config.run.name} had written before is in {aside}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    return True


# ---- running --------------------------------------------------------------------------------------------------


def _run(config: DictConfig, algorithm: str, user: list[str], within: Within | None) -> int:
    with contextlib.ExitStack() as held:
        console, folder = None, Path(config.run.dir)
        began = time.monotonic()
        try:
            held.enter_context(run_folder.only_one(folder.parent, folder.name))
            if not _open_run(config):
                return 0
            console = Console.take_over(Path(f"{folder}.log"))
            samples = OmegaConf.to_container(config.samples)
            run_log = RunLog(config.run.name, folder.parent, console, samples, config.seed)
            _record(config, algorithm, run_log, user)
        except OSError as error:
            return _cant_write(config, error, console)
        REQUEST.tell(console.say_from_handler, lambda: run_log.describe(status="interrupted", reason=f"{REQUEST.by}, cut off"))
        status, reason = _train(config, algorithm, run_log, began, within)
        return _farewell(config, console, status, reason, time.monotonic() - began, within.draw if within else _draw)


def _cant_write(config: DictConfig, error: OSError, console: Console | None) -> int:
    """Says why a run can't even be opened; on the terminal, since the log may be what can't be written."""
    folder = Path(config.run.result_dir)
    full = full_disk.is_full(error, folder)
    text = full_disk.sentence(folder) if full else f"run.result_dir={folder} can't be written to: {error.strerror}"
    if console is None:
        print(f"error: {text}", file=sys.stderr)
    else:
        console.say(f"error: {text}")
    return 1 if full else 2


def _record(config: DictConfig, algorithm: str, run_log: RunLog, user: list[str]) -> None:
    write_atomic(Path(config.run.dir) / "config.yaml", _recorded(config))
    run_log.describe(
        run=config.run.name,
        arm=config.run.arm,
        model=config.run.model,
        data=config.run.data,
        pair="_".join(part for part in (config.run.model, config.run.data) if part),
        seed=config.seed,
        algorithm=algorithm,
        config_hash=config_hash(config),
        status="running",
        reason=None,
        ended_by=None,  # a budget or the patience, once one does
        **provenance.describe(),
        overrides=user,
        **identity.describe(config),
    )


def _recorded(config: DictConfig) -> str:
    """The resolved config as a run keeps it, paths below the repository as from its root: it then reads the same, and is
    the same run, wherever the repository lies."""
    return OmegaConf.to_yaml(config, resolve=True).replace(f"{REPO_ROOT}{os.sep}", "")


def _greet(config: DictConfig, console: Console) -> None:
    rollout, data = config.actor_rollout_ref.rollout, config.data
    extra = f" + {data.extra_sampling_size} extra" if data.get("extra_sampling_size") else ""
    console.say(
        f"{config.run.name}: {config.algorithm.adv_estimator}, {data.train_batch_size} queries x {rollout.n}{extra} rollouts "
        f"a step, lr {config.actor_rollout_ref.actor.optim.lr}, on {config.trainer.device} ({rollout.name}"
        f"{f', {cores.threads()} threads' if config.trainer.device == 'cpu' else ''})"
    )
    console.say(f"log {_short(config.run.dir)}.log, metrics {_short(config.run.dir)}.jsonl")
    for line in (*published.lines(config), *copies_in_words(count_copies(config)), *notes(config)):
        console.say(line)
    console.say("starting verl and Ray ...")


def _train(
    config: DictConfig, algorithm: str, run_log: RunLog, began: float, within: Within | None
) -> tuple[str, str | None]:
    """Runs the trainer and records how it ended: ("finished", None), or how and why else."""
    try:
        status, reason = _trained(config, algorithm, run_log, within)
        REQUEST.leave()  # an end under way is not begun again
    except KeyboardInterrupt:  # a second signal in the instant before
        status, reason = "interrupted", f"stopped by {REQUEST.by}"
    run_log.describe(status=status, reason=reason, seconds=round(time.monotonic() - began, 1))
    if within is None or status != "finished":
        stop_ray()
    REQUEST.done()
    return status, reason


def _trained(config: DictConfig, algorithm: str, run_log: RunLog, within: Within | None) -> tuple[str, str | None]:
    try:
        _greet(config, run_log.console)
        set_environment(config)
        if within is None:
            InProcessRunner(config, algorithm, run_log).run()
        else:
            within.run(config, algorithm, run_log)
        return "finished", None
    except KeyboardInterrupt:
        return "interrupted", f"stopped by {REQUEST.by}"
    except (RunStopped, UserError) as error:
        traceback.print_exc()
        return "failed", str(error)
    except Exception as error:  # whatever verl or Ray raise: the log has it all, the console the last line of it
        traceback.print_exc()
        if REQUEST.made:  # whoever stopped the run may have signalled its workers too
            return "interrupted", f"stopped by {REQUEST.by}"
        if full_disk.is_full(error, Path(config.run.result_dir)):
            return "failed", full_disk.sentence(Path(config.run.result_dir))
        return "failed", own_ray.why(error) or f"{type(error).__name__}: {last_line(error)}"


def _farewell(
    config: DictConfig, console: Console, status: str, reason: str | None, seconds: float, draw: Callable[..., tuple[str, str]]
) -> int:
    if status == "finished":
        console.say(f"done in {duration(seconds)}")
        if best := run_folder.recorded(Path(config.run.dir)).get("best"):
            console.say(_best_in_words(config, best))
        said, why = draw(config.run.name, config.run.result_dir, config.run.figure_dir)
        if said:
            console.say(said)
        else:  # the run is done and written: a figure that fails must not make it look failed
            print(why, file=sys.stderr)
            last = (why.splitlines() or ["no reason given"])[-1]
            console.say(f"the figure could not be drawn ({last}); the run itself is whole")
        return 0
    console.say(f"{status} after {duration(seconds)}: {reason}")
    if status == "interrupted":
        console.say(_how_to_go_on(config))
        return STATUS
    console.say(f"the log says more: {_short(config.run.dir)}.log")
    return 1


def _best_in_words(config: DictConfig, best: dict[str, float]) -> str:
    """The step that validation chose, and how to get its model."""
    step, saved = best["step"], checkpoint_steps(Path(config.trainer.default_local_dir))
    how = f"bash Running-Bash/export.sh --model {config.run.name} --best --out <folder>"
    return f"best on validation: step {step}, {best[VALIDATION]:.3f}" + (f"; {how}" if step in saved else "; not saved")


def _how_to_go_on(config: DictConfig) -> str:
    steps = checkpoint_steps(Path(config.trainer.default_local_dir))
    where = f"goes on from step {steps[-1]}" if steps else "starts again: there was no step to save yet"
    if run_folder.fresh_start(config):
        key = "run.overwrite=true" if config.run.overwrite else "trainer.resume_mode=disable"
        return f"the same command without {key} {where}"
    return f"the same command {where}"


def _draw(run: str, result_dir: str, figure_dir: str) -> tuple[str, str]:
    """Has the figure of the run drawn by a process of its own: the trainer depends on nothing that reads its results."""
    folders = ["--result", result_dir, "--figure", figure_dir]
    command = [sys.executable, "-m", "Verl.analysis.figures.run_figure", run, *folders]
    path = os.pathsep.join(filter(None, (str(REPO_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    except OSError as error:
        return "", str(error)
    return done.stdout.strip(), done.stderr.strip()


def _short(path: str) -> str:
    with contextlib.suppress(ValueError):
        return os.path.relpath(path) if not os.path.relpath(path).startswith("../..") else path
    return path
