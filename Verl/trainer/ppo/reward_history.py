"""The rewards that each query has earned: the state of the replay arms, and what a resume must bring back.

A query is known by (data source, dataset index), never by its text: two data sets may ask the same question, and a text
decoded from tokens need not be the text that was asked.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

QueryKey = tuple[str, int]


@dataclass
class _Entry:
    window: deque  # of (reward, step), oldest first
    seen: int = 0  # rewards ever added
    mean: float = 0.0  # exponential moving average
    alpha: float = 1.0  # Beta tracker: successes and failures, each forgotten by the factor decay a round
    beta: float = 1.0


class RewardHistory:
    """First in, first out, `window_size` rewards per query; plus two trackers that remember longer.

    * ema: v <- decay v + (1 - decay) mean R, started at the first round's mean;
    * beta: alpha <- decay alpha + sum R, beta <- decay beta + sum (1 - R), v = alpha / (alpha + beta), from a uniform prior:
      the Beta tracker of SPO (arXiv 2509.13232), for rewards in [0, 1].

    mean and sum are over the n rewards that a query earns in one round, which are of one policy: it is between rounds that
    what was earned grows old. With n = 1, SPO's case, a round is a reward. SPO lets decay (its rho, between 0.875 and 0.96)
    follow how far the policy has moved since the query's last visit, which takes another pass over the old response; here,
    as with its own `rho.type=constant`, it is one number. A query that was never seen has the prior's value 1/2 there;
    here it has none yet (`values`).
    """

    def __init__(self, window_size: int, decay: float = 0.9):
        if window_size < 1:
            raise ValueError(f"window_size is {window_size}: it must be at least 1")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}: it must lie between 0 and 1")
        self.window_size, self.decay = window_size, decay
        self._entries: dict[QueryKey, _Entry] = {}

    def add(self, keys: Sequence[QueryKey], rewards: Sequence[float], step: int) -> None:
        """Appends one round's rewards, in the order of the batch. A query that occurs twice shares its entry."""
        rounds: dict[QueryKey, list[float]] = {}
        for key, reward in zip(keys, rewards, strict=True):
            rounds.setdefault(key, []).append(float(reward))
        for key, of_round in rounds.items():
            entry = self._entries.setdefault(key, _Entry(deque(maxlen=self.window_size)))
            entry.window.extend((reward, int(step)) for reward in of_round)
            mean = sum(of_round) / len(of_round)
            entry.mean = mean if entry.seen == 0 else self.decay * entry.mean + (1 - self.decay) * mean
            entry.alpha = self.decay * entry.alpha + sum(of_round)
            entry.beta = self.decay * entry.beta + sum(1 - reward for reward in of_round)
            entry.seen += len(of_round)

    def windows(self, keys: Sequence[QueryKey]) -> list[list[float]]:
        """The rewards in each query's window, oldest first; empty for a query not seen yet."""
        return [[reward for reward, _ in self._window(key)] for key in keys]

    def values(self, keys: Sequence[QueryKey], tracker: str, min_history: int) -> list[float | None]:
        """The tracker's value of each query, None where fewer than `min_history` rewards were seen."""
        result: list[float | None] = []
        for key in keys:
            entry = self._entries.get(key)
            if entry is None or entry.seen < max(min_history, 1):
                result.append(None)
            else:
                result.append(entry.mean if tracker == "ema" else entry.alpha / (entry.alpha + entry.beta))
        return result

    def staleness(self, keys: Sequence[QueryKey], step: int) -> float:
        """Mean age in steps of the rewards in these queries' windows; 0 if they are all of this step."""
        ages = [step - when for key in keys for _, when in self._window(key)]
        return sum(ages) / len(ages) if ages else 0.0

    def seen(self, keys: Sequence[QueryKey]) -> list[int]:
        """How many rewards each query has ever been given."""
        return [entry.seen if (entry := self._entries.get(key)) else 0 for key in keys]

    def __len__(self) -> int:
        return len(self._entries)

    def _window(self, key: QueryKey) -> Sequence[tuple[float, int]]:
        entry = self._entries.get(key)
        return entry.window if entry else ()

    def state_dict(self) -> dict:
        """Plain numbers and lists, for a checkpoint."""
        return {
            "window_size": self.window_size,
            "decay": self.decay,
            "entries": [
                [source, index, e.seen, e.mean, e.alpha, e.beta, [list(pair) for pair in e.window]]
                for (source, index), e in self._entries.items()
            ],
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes a checkpoint's histories.

        Raises:
            ValueError: if it was kept with another window or decay: its rewards can't be made into ours.
        """
        for name in ("window_size", "decay"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the checkpoint's reward history has {name}={state[name]}, this run asks for "
                    f"{getattr(self, name)}: resume with the same value, or start afresh with trainer.resume_mode=disable"
                )
        self._entries = {
            (source, index): _Entry(
                deque(((float(r), int(s)) for r, s in window), maxlen=self.window_size), seen, mean, alpha, beta
            )
            for source, index, seen, mean, alpha, beta, window in state["entries"]
        }
