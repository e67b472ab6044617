"""How many responses a second the scorers get through, and what the manager adds.

Run it from the repository: `PYTHONPATH=. python tests/benchmarks/scoring.py [data folder]`. Each line is the
median of five passes with the smallest and the largest. References and wrong answers (those of another question) are
timed apart: a wrong MATH answer is what costs, for it goes to math-verify unless it is a plain integer.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Verl import REPO_ROOT
from Verl.reward import hendrycks
from Verl.reward.guard import MathVerifyGuard, ScoringOutcome
from Verl.reward.normalise import normalise
from Verl.reward.score import score_fully
from Verl.reward.sources import CHAIN_SUM, GSM8K, MATH

PASSES = 5
Pairs = list[tuple[str, str]]
logger = logging.getLogger("scoring")


class _NeverAsked:
    """In place of math-verify, to time the rest."""

    def check(self, truth: str, answer: str) -> ScoringOutcome:
        return ScoringOutcome.DIFFERENT


def report(name: str, count: int, work: Callable[[], None]) -> None:
    """Time `work`, which scores `count` responses, and log responses per second."""
    work()  # warm: caches, a child's start
    rates = []
    for _ in range(PASSES):
        start = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - start))
    middle = statistics.median(rates)
    logger.info(
        "%-44s %9.0f responses/s  (%.0f to %.0f)  %8.3f ms each", name, middle, min(rates), max(rates), 1e3 / middle
    )


def _shuffled(pairs: Pairs) -> Pairs:
    texts = [text for text, _ in pairs]
    random.Random(0).shuffle(texts)
    return [(text, truth) for text, (_, truth) in zip(texts, pairs, strict=True)]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _score_all(source: str, pairs: Pairs, guard: MathVerifyGuard | _NeverAsked) -> None:
    normalise.cache_clear()  # or every pass but the first would only look up what it has seen
    for text, truth in pairs:
        score_fully(source, text, truth, guard)


def _score_all_by_two(source: str, pairs: Pairs, guard: MathVerifyGuard) -> None:
    """As a run does on two cores: two threads, each with a math-verify child."""
    normalise.cache_clear()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: score_fully(source, *pair, guard), pairs))


def _math_verify_all(pairs: Pairs, guard: MathVerifyGuard) -> None:
    for text, truth in pairs:
        guard.check(rf"\boxed{{{truth}}}", rf"\boxed{{{hendrycks.boxed(text)}}}")


def _through_manager(source: str, pairs: Pairs) -> Callable[[], None]:
    """Scoring as verl asks for it, decoding by a stand-in tokenizer included."""
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto

    from Verl.reward.manager import BanditRewardManager

    class Characters:
        def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
            return "".join(map(chr, ids.tolist()))

    def sample(text: str, truth: str) -> DataProto:
        ids = torch.tensor([list(map(ord, text))])
        fields = {"data_source": np.array([source]), "reward_model": np.array([{"ground_truth": truth}])}
        return DataProto.from_dict({"responses": ids, "attention_mask": torch.ones_like(ids)}, fields)

    manager = BanditRewardManager(OmegaConf.create({"reward": {"rule": "strict"}}), Characters())
    samples = [sample(*pair) for pair in pairs]

    async def one_by_one() -> None:
        for data in samples:
            await manager.run_single(data)

    return lambda: asyncio.run(one_by_one())


def main() -> None:
    """Time every scorer on the published data."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("BANDIT_SHARED_DATA", REPO_ROOT.parent / "shared" / "data"))
    parser.add_argument("data", type=Path, nargs="?", default=default)
    folder = parser.parse_args().data

    rows = _read(folder / "gsm8k" / "test.jsonl")
    gsm8k = [(row["answer"], row["answer"].split("#### ")[-1].replace(",", "")) for row in rows]
    math_500 = [(row["solution"], row["answer"]) for row in _read(folder / "MATH-500" / "test.jsonl")]
    sums = [("7+5=12;12-3=9;#9", str(8 + number % 2)) for number in range(2000)]

    guard, nobody = MathVerifyGuard(), _NeverAsked()
    report("gsm8k, references", len(gsm8k), lambda: _score_all(GSM8K, gsm8k, nobody))
    report("gsm8k, wrong", len(gsm8k), lambda: _score_all(GSM8K, _shuffled(gsm8k), nobody))
    report("arithmetic, half right", len(sums), lambda: _score_all(CHAIN_SUM, sums, nobody))
    report("MATH strict, references", len(math_500), lambda: _score_all(MATH, math_500, nobody))
    report("MATH strict, wrong", len(math_500), lambda: _score_all(MATH, _shuffled(math_500), nobody))
    report("MATH all three, references", len(math_500), lambda: _score_all(MATH, math_500, guard))
    report("MATH all three, wrong", len(math_500), lambda: _score_all(MATH, _shuffled(math_500), guard))
    two = MathVerifyGuard(workers=2)
    report("MATH all three, wrong, two cores", len(math_500), lambda: _score_all_by_two(MATH, _shuffled(math_500), two))
    two.close()
    report("math-verify alone, references", len(math_500), lambda: _math_verify_all(math_500, guard))
    report("math-verify alone, wrong", len(math_500), lambda: _math_verify_all(_shuffled(math_500), guard))
    guard.close()
    report("gsm8k through the manager", len(gsm8k), _through_manager(GSM8K, gsm8k))
    report("arithmetic through the manager", len(sums), _through_manager(CHAIN_SUM, sums))


if __name__ == "__main__":
    main()
