"""The scores of an answer: our rules', or those of a function of the user's for questions that our rules don't know."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from Verl.evaluation.questions import Question
from Verl.reward.result import Scores
from Verl.reward.score import score_fully
from Verl.reward.sources import KNOWN_DATA_SOURCES
from Verl.reward.timed import DEFAULT_SECONDS, CallFailed, CallTimedOut, TimedFunction


class Scorer:
    """As a run scores (Verl/reward/manager.py): the function's reward is the strict score, and Pass@1 its mean.

    Args:
        function: (file, name), or None: our rules only.
    """

    def __init__(self, function: tuple[str, str] | None):
        self._function = TimedFunction(*function, fixed={}, seconds=DEFAULT_SECONDS) if function else None

    def __call__(self, question: Question, text: str, seed: int) -> Scores:
        """The scores of `text`; `seed` is for what the function draws."""
        if self._function is None or question.data_source in KNOWN_DATA_SOURCES:
            return score_fully(question.data_source, text, question.ground_truth)
        scores = Scores(strict=0.0, flexible=math.nan, format=math.nan, lenient=math.nan)
        try:
            return scores._replace(strict=asyncio.run(self._reward(question, text, seed)))
        except CallTimedOut:
            return scores._replace(timeout=1.0)
        except (CallFailed, ValueError, TypeError, KeyError):
            return scores._replace(failure=1.0)

    async def _reward(self, question: Question, text: str, seed: int) -> float:
        result: Any = await self._function(
            seed,
            data_source=question.data_source,
            solution_str=text,
            ground_truth=question.ground_truth,
            extra_info={"index": question.index},
        )
        reward = float(result["score"] if isinstance(result, Mapping) else result)
        if not math.isfinite(reward):
            raise ValueError(f"the reward function returned {reward}")
        return reward
