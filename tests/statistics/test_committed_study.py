"""compare_with on the committed study: what its logs say now."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from Verl.analysis.runs import packed
from Verl.analysis.runs.table import evaluation_files, question_scores
from Verl.analysis.stats import compare_with

RESULT = Path(__file__).resolve().parents[2] / "Running-Results" / "studies" / "tiny_arith" / "result"


def last_scores(result: Path) -> dict[str, np.ndarray]:
    """Arm -> (seeds, questions) of 0/1 at the last evaluation on the test set, seeds in order."""
    runs = [path.parent.name for path in packed.find(result, "*/run.json")]
    arms: dict[str, dict[int, np.ndarray]] = {}
    for run in runs:
        arm, seed = re.fullmatch(r"(.+)_tiny_arith_seed(\d+)", run).groups()
        files = evaluation_files(result, run)
        arms.setdefault(arm, {})[int(seed)] = (
            question_scores(files[max(files)], "test", "strict").sort_index().to_numpy()
        )
    return {arm: np.array([of_arm[seed] for seed in sorted(of_arm)]) for arm, of_arm in arms.items()}


@pytest.fixture(scope="module")
def found():
    scores = last_scores(RESULT)
    return compare_with(scores, "grpo_0032_1", margin=0.02)


def test_harm_that_everybody_can_see_is_seen(found):
    for control in ("random", "shuffled", "format", "lr0"):
        one = found[f"grpo_0032_8_control_{control}"]
        assert one.verdict == "worse" and one.p < 0.01 and one.difference < -0.3


def test_gains_are_seen_too_and_in_the_right_order(found):
    assert Counter(one.verdict for one in found.values())["better"] >= 8
    assert found["grpo_0256_1"].verdict == "better" and 0.02 < found["grpo_0256_1"].difference < 0.12
    assert found["onerpo_0032_1_7"].verdict == "undecided"


def test_an_arm_whose_own_seeds_differ_by_0_14_is_not_certain(found):
    assert found["arpo_0032_8"].seed_std > 0.03
    assert found["arpo_0032_8"].high - found["arpo_0032_8"].low > 3 * (
        found["grpo_0032_8"].high - found["grpo_0032_8"].low
    )
