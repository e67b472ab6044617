"""The scores of an answer: our rules', or those of a function of the user's for questions that our rules don't know."""

from __future__ import annotations

import asyncio
import math

from Verl.evaluation.queries import EvaluationQuery
from Verl.reward.parts import Part, reward_and_parts
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

    def __call__(self, question: EvaluationQuery, text: str, seed: int) -> tuple[Scores, dict[str, Part]]:
        """The scores of `text`, and the parts of the function's reward; `seed` is for what the function draws."""
        if self._function is None or question.data_source in KNOWN_DATA_SOURCES:
            return score_fully(question.data_source, text, question.ground_truth), {}
        scores = Scores(strict=0.0, flexible=math.nan, format=math.nan, lenient=math.nan)
        try:
            reward, parts = asyncio.run(self._reward(question, text, seed))
            return scores._replace(strict=reward), parts
        except CallTimedOut:
            return scores._replace(timeout=1.0), {}
        except (CallFailed, ValueError, TypeError):
            return scores._replace(failure=1.0), {}

    async def _reward(self, question: EvaluationQuery, text: str, seed: int) -> tuple[float, dict[str, Part]]:
        result = await self._function(
            seed,
            data_source=question.data_source,
            solution_str=text,
            ground_truth=question.ground_truth,
            extra_info={"index": question.index},
        )
        return reward_and_parts(result)
