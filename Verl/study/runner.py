"""Carries out a queue of runs: starts, watches, retries once, and goes on whatever happens to one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from Verl.study.jobs import DONE, FAILED, RUNNING, WAITING, Job, Table, finished, mark_interrupted, run_record
from Verl.study.places import GRACE_SECONDS, Place, Places
from Verl.trainer.run_folder import going_on, last_step
from Verl.wording import duration

ATTEMPTS = 2
BAD_INPUT = 2  # the exit status of a run that can't start: the same the second time
_LOCKED = "is going on in another process"


class StudyRunner:
    """Runs the jobs of `table` on `places`, in order.

    Args:
        command: job -> what starts it. environment: what its process gets on top.
        say: takes a line for the user. poll: seconds between two looks. report: seconds between two lines of progress.
    """

    def __init__(
        self,
        table: Table,
        places: Places,
        result_dir: Path,
        command: Callable[[Job], Sequence[str]],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        poll: float = 0.5,
        report: float = 60.0,
    ):
        self.table, self.places, self.result_dir = table, places, result_dir
        self.command, self.environment, self.say = command, environment, say
        self.poll, self.report = poll, report
        self.console_dir = result_dir / f"study_{table.study}"
        self.queue: list[Job] = []
        self.running: dict[str, tuple[Job, Place, float, int]] = {}  # run: job, its place, when begun, at which step
        self._waited_for: set[str] = set()
        self._reported = 0.0

    def run(self) -> bool:
        """Until nothing is left to do; whether every run is done."""
        self._take_stock()
        try:
            while self.queue or self.running:
                self._collect()
                self._fill_places()
                self._report()
                if self.queue or self.running:
                    time.sleep(self.poll)
        except BaseException:
            try:
                self._stop_all()
            finally:
                self._mark_interrupted()
            raise
        finally:
            self.table.write()
        return self.table.count(DONE) == len(self.table.jobs)

    def _take_stock(self) -> None:
        for job in self.table.jobs:
            job.state = DONE if finished(self.result_dir, job) else WAITING
        self.queue = [job for job in self.table.jobs if job.state == WAITING]
        self.table.write()
        self._reported = time.monotonic()
        self.say(f"{len(self.table.jobs)} runs, {self.table.count(DONE)} done already, {len(self.queue)} to do")

    # ---- starting ---------------------------------------------------------------------------------------------

    def _fill_places(self) -> None:
        for job in list(self.queue):
            if len(self.running) >= self.places.count:
                return
            if not self._is_another_s(job):
                self._start(job)

    def _is_another_s(self, job: Job) -> bool:
        """Whether another process is at this run, or just finished it; the queue then goes on without it."""
        if going_on(self.result_dir, job.run):
            if job.run not in self._waited_for:
                self._waited_for.add(job.run)
                self._say(job, "is going on in another process; waiting for that")
            return True
        if finished(self.result_dir, job):
            self.queue.remove(job)
            self._set(job, DONE)
            self._say(job, "finished by another process")
            return True
        return False

    def _start(self, job: Job) -> None:
        self.queue.remove(job)
        job.attempts += 1
        self._set(job, RUNNING)
        before = last_step(self.result_dir / f"{job.run}.jsonl")
        place = self.places.start(self.command(job), self.environment, self._console(job))
        self.running[job.run] = (job, place, time.monotonic(), max(0, before))
        again = " again" if job.attempts > 1 else ""
        self._say(job, f"started{again}" + (f" (step {before} is there)" if before > 0 else ""))

    # ---- ending -----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for job, place, began, _ in list(self.running.values()):
            status = place.poll()
            if status is not None:
                del self.running[job.run]
                self._ended(job, status, time.monotonic() - began)

    def _ended(self, job: Job, status: int, seconds: float) -> None:
        job.exit_status, job.reason = status, None
        if status == 0 and finished(self.result_dir, job):
            job.seconds += seconds
            self._set(job, DONE)
            self._say(job, f"done in {duration(seconds)}{self._left()}")
            return
        job.reason = self._why(job, status)
        if status == BAD_INPUT and _LOCKED in job.reason:  # it was faster than our look at the lock
            job.attempts -= 1
            self.queue.append(job)
            self._set(job, WAITING)
        elif job.attempts < ATTEMPTS and status != BAD_INPUT:
            self.queue.append(job)  # behind the others: what made it fail may have passed by then
            self._set(job, WAITING)
            self._say(job, f"failed ({job.reason}); once more later")
        else:
            self._set(job, FAILED)
            self._say(job, f"failed for good ({job.reason}); the log is {self._console(job)}{self._left()}")

    def _why(self, job: Job, status: int) -> str:
        record = run_record(self.result_dir, job.run)
        if status not in (0, BAD_INPUT) and record.get("status") in ("failed", "interrupted") and record.get("reason"):
            return str(record["reason"])
        try:
            said = [line for line in self._console(job).read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            said = []
        if status == 0:
            return f"it ended at step {max(0, self._step(job))} of {job.steps}, and its run.json does not say finished"
        if status < 0:
            return f"killed by signal {-status}"
        return said[-1].removeprefix("error: ") if said else f"status {status}"

    def _stop_all(self) -> None:
        """All get the signal at once, so that they save side by side; whoever does not end is killed, at a second interruption
        at once."""
        places = [place for _, place, _, _ in self.running.values()]
        try:
            for place in places:
                place.ask_to_stop()
            deadline = time.monotonic() + GRACE_SECONDS
            while any(place.poll() is None for place in places) and time.monotonic() < deadline:
                time.sleep(self.poll)
        finally:
            for place in places:
                place.kill()

    def _mark_interrupted(self) -> None:
        """For the runs that had no time to say it themselves."""
        for job, _, _, _ in self.running.values():
            job.state = WAITING
            mark_interrupted(self.result_dir, job.run)
        self.running.clear()

    # ---- telling ----------------------------------------------------------------------------------------------

    def _set(self, job: Job, state: str) -> None:
        job.state = state
        self.table.write()

    def _console(self, job: Job) -> Path:
        return self.console_dir / f"{job.run}.console"

    def _say(self, job: Job, text: str) -> None:
        over = self.table.count(DONE) + self.table.count(FAILED)
        self.say(f"[{over}/{len(self.table.jobs)}] {job.title}: {text}")

    def _report(self) -> None:
        if not self.running or time.monotonic() - self._reported < self.report:
            return
        self._reported = time.monotonic()
        for job, _, _, _ in self.running.values():
            self._say(job, f"step {max(0, self._step(job))}/{job.steps}{self._left()}")

    def _step(self, job: Job) -> int:
        return last_step(self.result_dir / f"{job.run}.jsonl")

    def _left(self) -> str:
        """About how long the rest takes: the work left, at the pace of the runs that are done or under way."""
        worked = [(job.seconds, job.work) for job in self.table.jobs if job.state == DONE and job.seconds]
        left = sum(job.work for job in self.queue)
        for job, _, began, first in self.running.values():
            share = min(1.0, max(0, self._step(job)) / job.steps)
            left += job.work * (1 - share)
            if share > first / job.steps:
                worked.append((time.monotonic() - began, job.work * (share - first / job.steps)))
        done = sum(work for _, work in worked)
        if not left or not done:
            return ""
        pace = sum(seconds for seconds, _ in worked) / done
        return f"; about {duration(left * pace / max(1, self.places.count))} left"
