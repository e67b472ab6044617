"""What verl calls for the reward of each response: the reward manager `bandit_rft`.

Configuration (keys of the run's config):
    reward.rule                    which score trains: strict (default), lenient, flexible or format; random is a control
    reward.custom_reward_function  a function of the user's, as verl knows it; its return value trains instead
    reward.timeout_seconds         the limit of one call of it (Verl/reward/timed.py)
    seed                           of the random control

Every response is given all four scores of ours whatever trains, so that "learnt the format" shows apart from "learnt
to solve". `run_single` never raises: verl 0.9.1 answers an exception here by dropping the query and drawing another
(`verl/trainer/ppo/v1/replay_buffer.py`), which would bias the data or go on for ever. What goes wrong is counted in
`failure` and `timeout`, and logged once per distinct message.

Source of the interface: verl 0.9.1, `verl/experimental/reward_loop/reward_manager/{base,naive}.py`.
"""

import asyncio
import inspect
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from Verl.errors import UserError
from Verl.reward.guard import MathVerifyGuard
from Verl.reward.parts import KEY as PARTS
from Verl.reward.parts import Part, reward_and_parts
from Verl.reward.result import Scores
from Verl.reward.score import may_block, score_fully
from Verl.reward.sources import KNOWN_DATA_SOURCES
from Verl.reward.timed import DEFAULT_SECONDS, CallFailed, CallTimedOut, TimedFunction
from Verl.seeds import derive

logger = logging.getLogger(__name__)

SCORE_RULES = ("strict", "lenient", "flexible", "format")
RANDOM_RULE = "random"
RULES = (*SCORE_RULES, RANDOM_RULE)
EXTRA_KEYS = ("score", *Scores._fields)

_MAX_LOGGED = 1000
_FAILED = Scores(strict=0.0, flexible=0.0, format=0.0, failure=1.0)
# No rule of ours applies (a data set of the user's, scored by the user's function): not a number, rather than a zero.
_NOT_APPLICABLE = Scores(strict=math.nan, flexible=math.nan, format=math.nan, lenient=math.nan)


def fair_coin(seed: int, step: int, data_source: str, index: int, rollout: int) -> float:
    """The random control's reward: 0.0 or 1.0 with even odds, the same again for the same place in the same run."""
    return float(derive(seed, "random_reward", step, data_source, index, rollout) & 1)


@register("bandit_rft")
class BanditRewardManager(RewardManagerBase):
    """Scores responses one at a time; see the module's docstring.

    Args:
        config: the run's config.
        tokenizer: decodes the response, without special tokens.
        compute_score: the user's function where `reward.custom_reward_function.path` is set; else verl's default
            scorer, which is not used.
        reward_router_address, reward_model_tokenizer: passed on to the user's function where there is a reward model.
        guard: who runs math-verify; by default the guard that this process shares.

    Raises:
        UserError: an unknown rule, a random rule without a seed, a random rule beside a custom function.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Callable[..., Any] | None = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
        guard: MathVerifyGuard | None = None,
    ):
        super().__init__(config, tokenizer, compute_score)
        self.rule = config.reward.get("rule", "strict")
        self.seed = config.get("seed")
        self.seconds = config.reward.get("timeout_seconds") or DEFAULT_SECONDS
        custom = config.reward.get("custom_reward_function") or {}
        self._custom = compute_score if custom.get("path") else None
        self._check_settings()
        self._guard = guard
        self._logged: set[str] = set()
        self._router = {}
        if reward_router_address is not None:
            self._router = {
                "reward_router_address": reward_router_address,
                "reward_model_tokenizer": reward_model_tokenizer,
            }
        self._timed: TimedFunction | None = None
        if self._custom is not None and not inspect.iscoroutinefunction(self._custom):
            fixed = {**self._router, **(custom.get("reward_kwargs") or {})}
            self._timed = TimedFunction(custom.path, custom.name, fixed, self.seconds)

    def _check_settings(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"reward.rule={self.rule} is unknown: it must be one of {', '.join(RULES)}")
        if self.rule == RANDOM_RULE and self.seed is None:
            raise UserError("reward.rule=random needs a seed: set seed to a whole number")
        if self._custom is not None and self.rule == RANDOM_RULE:
            raise UserError(
                "reward.rule=random and reward.custom_reward_function exclude each other: unset one of them"
            )

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The reward of one response.

        Args:
            data: one sample with `responses` and `attention_mask`, `data_source`, `reward_model.ground_truth` and
                perhaps `extra_info`; of several outputs of one conversation, the last counts.

        Returns:
            {"reward_score": float, "reward_extra_info": {score, strict, flexible, format, failure, timeout}}: the score
            repeats the reward; `parts` has what else a custom function's dictionary held (Verl/reward/parts.py), if
            anything; with a failure or a timeout, `error` has the traceback or the reason.
        """
        item = data[-1]
        fields = item.non_tensor_batch
        if may_block(fields.get("data_source")):
            # To a thread: math-verify may take seconds, and the loop serves other responses meanwhile.
            text, scores, failed = await asyncio.get_running_loop().run_in_executor(None, self._decode_and_score, item)
        else:
            # The hop would cost more than the work.
            text, scores, failed = self._decode_and_score(item)
        parts: dict[str, Part] = {}
        try:
            if self._custom is not None:
                reward, parts = await self._custom_reward(text, fields)
            elif self.rule == RANDOM_RULE:
                reward = self._random_reward(fields)
            else:
                reward = getattr(scores, self.rule)
        except CallTimedOut as error:
            self._log_once("the reward of a response", error)
            reward, scores, failed = 0.0, scores._replace(timeout=1.0), {"error": f"the reward function {error}"}
        except Exception as error:  # of the user's function, most likely: counted and logged, never silent
            self._log_once("the reward of a response", error)
            reward, scores, failed = 0.0, scores._replace(failure=1.0), {"error": _trace(error)}
        own = {PARTS: parts} if parts else {}
        return {"reward_score": reward, "reward_extra_info": {"score": reward, **scores._asdict(), **failed, **own}}

    def _decode_and_score(self, item: Any) -> tuple[str, Scores, dict[str, str]]:
        """The response's text, our scores of it, and {"error": traceback} if scoring failed, which costs this response only."""
        text = ""
        try:
            text = self._decode(item)
            data_source = item.non_tensor_batch["data_source"]
            if self._custom is not None and data_source not in KNOWN_DATA_SOURCES:
                return text, _NOT_APPLICABLE, {}
            truth = item.non_tensor_batch["reward_model"]["ground_truth"]
            return text, score_fully(data_source, text, truth, self._guard), {}
        except Exception as error:
            self._log_once("scoring a response", error)
            return text, _FAILED, {"error": _trace(error)}

    def _decode(self, item: Any) -> str:
        responses = item.batch["responses"]
        length = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        return self.tokenizer.decode(responses[:length], skip_special_tokens=True)

    def _random_reward(self, fields: Mapping[str, Any]) -> float:
        """A fair coin that depends on the response's place in the run and on nothing else, least of all on its text."""
        extra_info = fields.get("extra_info") or {}
        index = extra_info.get("index", fields.get("index"))
        place = {"global_steps": fields.get("global_steps"), "index": index, "session_id": fields.get("session_id")}
        missing = [name for name, value in place.items() if value is None]
        if missing:
            raise ValueError(f"reward.rule=random needs {', '.join(missing)} with each sample")
        return fair_coin(
            self.seed, int(place["global_steps"]), fields["data_source"], int(index), int(place["session_id"])
        )

    async def _custom_reward(self, text: str, fields: Mapping[str, Any]) -> tuple[float, dict[str, Part]]:
        """The user's reward and its parts; called as verl's own manager calls it."""
        extra_info = {
            **(fields.get("extra_info") or {}),
            **(fields.get("tool_extra_fields") or {}),
            "num_turns": fields.get("__num_turns__"),
            "rollout_reward_scores": fields.get("reward_scores", {}),
        }
        arguments = {
            "data_source": fields["data_source"],
            "solution_str": text,
            "ground_truth": fields["reward_model"]["ground_truth"],
            "extra_info": extra_info,
        }
        if self._timed is not None:
            result = await self._timed(self._call_seed(fields), **arguments)
        else:
            result = await self._in_time(self._custom(**arguments, **self._router))
        return reward_and_parts(result)

    def _call_seed(self, fields: Mapping[str, Any]) -> int:
        """For what the user's function draws: the same again for the same place in the same run."""
        extra_info = fields.get("extra_info") or {}
        index = extra_info.get("index", fields.get("index"))
        place = (fields.get("global_steps"), fields["data_source"], index, fields.get("session_id"))
        return derive(self.seed or 0, "custom_reward", *map(str, place))

    async def _in_time(self, call: Awaitable[Any]) -> Any:
        """The coroutine's result. Not wait_for: a TimeoutError of the function's own is a failure, not our limit."""
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait({task}, timeout=self.seconds)
        if not done:
            task.cancel()
            raise CallTimedOut(f"took longer than {self.seconds:g} s")
        return task.result()

    def _log_once(self, what: str, error: Exception) -> None:
        message = str(error) if isinstance(error, CallFailed | CallTimedOut) else f"{type(error).__name__}: {error}"
        if message not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(message)
            logger.error(
                "%s failed (reward 0, counted as failure; this message is not logged again): %s",
                what,
                getattr(error, "trace", message),
                exc_info=None if isinstance(error, CallFailed | CallTimedOut) else error,
            )


def _trace(error: Exception) -> str:
    """The error's traceback as text; where a child process had it, the one there."""
    return getattr(error, "trace", None) or "".join(traceback.format_exception(error))
