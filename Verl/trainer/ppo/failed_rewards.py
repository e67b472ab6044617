"""A reward that can't be computed is 0 and is counted; a run in which none can be computed trains on nothing and stops."""

from Verl.errors import RunStopped, last_line
from Verl.trainer.ppo.rollouts import Rollouts

ENOUGH = 16  # failures in a row; a step of fewer responses may fail as a whole by chance


class FailedRewards:
    """Watches one run's rewards.

    `check` raises RunStopped where every reward of a batch failed or timed out, and so did at least ENOUGH in a row
    (batches of fewer responses are counted together).
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def check(self, rollouts: Rollouts, what: str) -> None:
        """Args: what: names the batch, e.g. "step 3"."""
        parts = [rollouts] + ([rollouts.extra] if rollouts.extra else [])
        drawn = sum(len(part) for part in parts)
        failures, timeouts = (int(sum(sum(part.scores[name]) for part in parts)) for name in ("failure", "timeout"))
        if not drawn or failures + timeouts < drawn:
            self._in_a_row = 0
            return
        self._in_a_row += drawn
        if self._in_a_row < ENOUGH:
            return
        first = next((part.first_error for part in parts if part.first_error), None)
        print(first or "no error was reported", flush=True)  # the whole traceback, into the log
        cause = last_line(ValueError(first)) if first else "every call reached the time limit"
        raise RunStopped(
            f"{what}: none of the {drawn} rewards could be computed ({cause}); training on zeros teaches nothing, so the run "
            "stops here"
        )
