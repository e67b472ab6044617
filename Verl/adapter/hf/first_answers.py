"""What a server answers with a run's first weights, kept for later runs in its process that ask the same of the same weights.

The runs of a study with one seed begin alike: before the first step one model answers the test questions with the same random
numbers, whatever the arm. An answer depends on the weights, the batch and the decoder's settings, and on nothing else, so
that the kept one is what would be computed again, bit for bit (tests/runs/test_host.py).
"""

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from Verl.adapter.generation import Completion, Request

_BATCHES_AT_MOST = 8  # kept: ten megabytes for 4,096 short answers


class FirstAnswers:
    """Answers to batches of requests, by the digest of all that they depend on.

    ``on``: nothing is looked at, hashed or kept before; a run that is alone in its process would do it for nobody.
    """

    def __init__(self) -> None:
        self.on = False
        self._kept: dict[str, list[Completion]] = {}
        self.begin(())

    def begin(self, settings: Any) -> None:
        """A run begins, with these settings of the decoder."""
        self._settings = settings
        self._loads, self._weights = 0, None

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """The run's weights are now these. Its first are looked at; from the second on they are its own."""
        self._loads += 1
        self._weights = _digest(weights) if self.on and self._loads == 1 else None

    def of(self, requests: Sequence[Request], compute: Callable[[Sequence[Request]], list[Completion]]) -> list[Completion]:
        """The answers that are kept, else those that are computed. A request without a seed is answered anew each time."""
        if self._weights is None or any(request.seed is None for request in requests):
            return compute(requests)
        key = hashlib.sha256(pickle.dumps((self._weights, self._settings, list(requests)))).hexdigest()
        found = self._kept.pop(key, None)
        self._kept[key] = found if found is not None else compute(requests)
        while len(self._kept) > _BATCHES_AT_MOST:
            del self._kept[next(iter(self._kept))]  # the one that was not asked for the longest
        return self._kept[key]


def _digest(weights: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
