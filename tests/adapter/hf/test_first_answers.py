"""Runs that begin alike in one process are answered once, and nothing else is."""

import numpy as np
import pytest

from Verl.adapter.generation import Completion, Request
from Verl.adapter.hf.first_answers import FirstAnswers

WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, dtype=np.float32)}
ASKED = [Request([1, 2], max_tokens=3, seed=5), Request([1, 3], max_tokens=3, seed=6)]


class Server:
    """Counts what it has to compute."""

    def __init__(self):
        self.answers, self.computed = FirstAnswers(), 0
        self.answers.on = True

    def run(self, weights=WEIGHTS, asked=ASKED, settings=("float32",), loads=1) -> list[Completion]:
        self.answers.begin(settings)
        for _ in range(loads):
            self.answers.load(weights)
        return self.answers.of(asked, self._compute)

    def _compute(self, requests):
        self.computed += 1
        return [Completion([self.computed, request.seed or 0]) for request in requests]


@pytest.fixture
def server():
    return Server()


def test_a_second_run_that_begins_alike_is_answered_from_the_first(server):
    assert server.run() == server.run() and server.computed == 1


@pytest.mark.parametrize(
    "other",
    [
        {"weights": WEIGHTS | {"b": np.array([1, 1 + 1e-7], dtype=np.float32)}},
        {"weights": {"a": WEIGHTS["a"].reshape(3, 2), "b": WEIGHTS["b"]}},
        {"asked": ASKED[::-1]},
        {"asked": [ASKED[0], Request([1, 3], max_tokens=3, seed=7)]},
        {"asked": [ASKED[0], Request([1, 3], max_tokens=3, seed=6, temperature=0.5)]},
        {"settings": ("bfloat16",)},
        {"loads": 2},  # a step's weights
    ],
)
def test_whatever_differs_is_computed(server, other):
    assert server.run() != server.run(**other) and server.computed == 2


def test_a_request_without_a_seed_is_answered_anew(server):
    asked = [Request([1, 2], max_tokens=3)]
    server.run(asked=asked)
    server.run(asked=asked)
    assert server.computed == 2


def test_a_run_alone_in_its_process_keeps_nothing(server):
    server.answers.on = False
    server.run()
    server.run()
    assert server.computed == 2


def test_before_any_weights_nothing_is_kept(server):
    server.run(loads=0)
    server.run(loads=0)
    assert server.computed == 2


def test_what_was_not_asked_for_the_longest_goes_first(server):
    batches = [[Request([n + 1], max_tokens=1, seed=0)] for n in range(9)]
    for asked in [*batches[:8], batches[0], batches[8]]:
        server.run(asked=asked)
    assert server.computed == 9
    server.run(asked=batches[0])
    assert server.computed == 9
    server.run(asked=batches[1])
    assert server.computed == 10
