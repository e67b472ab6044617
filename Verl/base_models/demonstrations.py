"""What the tiny base model is shown before reinforcement learning: two ways to answer a chain of sums.

A step-by-step demonstration of `7+5-3=` is `7+5=12;12-3=9;#9`, a direct one is `#9`. After the warm start the model
samples either way, and the first is right far more often: that choice is what reinforcement learning finds. Warm starts
without it did not improve in 100 steps (measured; DESIGN notes, section 6).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from Verl.data.arithmetic import ArithmeticSum, stream

ANSWER_MARK = "#"
_TERM = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Demonstration:
    """A question's text and the response to imitate (without the end token)."""

    question: str
    response: str


def step_by_step(question: ArithmeticSum) -> str:
    """The response that writes every running sum: `7+5-3=` gives `7+5=12;12-3=9;#9`."""
    first, *others = _TERM.findall(question.text.removesuffix("="))
    running, steps = int(first), ""
    for term in others:
        total = running + int(term)
        steps += f"{running}{term}={total};"
        running = total
    if str(running) != question.answer:
        raise ValueError(f"{question.text} is {running}, but its answer is given as {question.answer}")
    return steps + direct(question)


def direct(question: ArithmeticSum) -> str:
    """The response that answers at once: `7+5-3=` gives `#9`."""
    return ANSWER_MARK + question.answer


def demonstrations(seed: int, step_share: float) -> Iterator[Demonstration]:
    """Demonstrations from the warm-start half of the questions; `step_share` of them (0..1) go step by step.

    Which way a question is answered is drawn anew at every visit, so the model cannot tell the way from the question.
    """
    if not 0 <= step_share <= 1:
        raise ValueError(f"step_share must be between 0 and 1, got {step_share}")
    rng = random.Random(seed)
    for question in stream("warm_start", seed):
        write = step_by_step if rng.random() < step_share else direct
        yield Demonstration(question.text, write(question))
