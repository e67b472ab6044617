"""Every scorer on the table of hand-checked answers."""

from collections import Counter

import pytest
from reward_cases import CASES, Case

from Verl.reward.guard import MathVerifyGuard
from Verl.reward.score import score, score_fully
from Verl.reward.sources import CHAIN_SUM, GSM8K, KNOWN_DATA_SOURCES, LARGEST, MATH, MATH_500


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.data_source.split('/')[-1]}: {case.why}")
def test_verdict(case: Case, guard: MathVerifyGuard) -> None:
    result = score_fully(case.data_source, case.response, case.truth, guard)
    rules = ("strict", "lenient", "flexible", "format") if case.data_source == MATH else ("strict", "flexible", "format")
    assert "".join(str(int(getattr(result, rule))) for rule in rules) == case.verdict
    assert result.strict <= result.lenient <= result.flexible and result.strict <= result.format
    assert result.lenient == result.strict or case.data_source == MATH
    assert (result.failure, result.timeout) == (0.0, float("tower" in case.why))


def test_table_is_large_and_has_no_row_twice() -> None:
    assert len(CASES) >= 150
    assert not [key for key, count in Counter((c.data_source, c.response, c.truth) for c in CASES).items() if count > 1]
    assert {case.data_source for case in CASES} == {*KNOWN_DATA_SOURCES} - {MATH_500}
    for source in {*KNOWN_DATA_SOURCES} - {MATH_500}:  # each scorer has cases for each verdict of each score
        verdicts = [case.verdict for case in CASES if case.data_source == source]
        assert all({verdict[place] for verdict in verdicts} == {"0", "1"} for place in range(len(verdicts[0])))


def test_scores_are_floats_under_their_names() -> None:
    right = {GSM8K: "#### 4", CHAIN_SUM: "#4", LARGEST: "4", MATH: r"\boxed{4}", MATH_500: r"\boxed{4}"}
    for source, response in right.items():
        result = score(source, response, "4", {"index": 3})
        assert result == {"strict": 1.0, "lenient": 1.0, "flexible": 1.0, "format": 1.0}
        assert all(type(value) is float for value in result.values())


def test_truth_may_be_a_number() -> None:
    assert score(GSM8K, "#### 4", 4)["strict"] == 1.0


@pytest.mark.parametrize("source", ["gsm8k", "", "openai/GSM8K", "lighteval/MATH"])
def test_unknown_data_source_is_refused_by_name(source: str) -> None:
    with pytest.raises(ValueError) as error:
        score(source, "#### 4", "4")
    assert all(repr(name) in str(error.value) for name in (source, *KNOWN_DATA_SOURCES))


@pytest.mark.parametrize(
    ("source", "truth"), [(GSM8K, "eighteen"), (GSM8K, ""), (CHAIN_SUM, "9.5"), (CHAIN_SUM, ""), (LARGEST, "many"), (MATH, " ")]
)
def test_unreadable_truth_is_refused(source: str, truth: str) -> None:
    with pytest.raises(ValueError, match="ground truth"):
        score(source, "#### 4", truth)
