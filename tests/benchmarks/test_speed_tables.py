"""The tables say what was measured: medians over all rounds, the limit, the overhead; and the fit finds a known line."""

import pytest

from tests.benchmarks import speed_scaling
from tests.benchmarks.speed import table
from tests.benchmarks.speed.work import WORKS


def _phases(step: float, gen: float, ref: float, update: float) -> dict[str, float]:
    return {"step": step, "gen": gen, "ref": ref, "update_actor": update}


@pytest.fixture
def kept() -> dict:
    loop = {"gigabytes": 1.0, "matmul": 1e11, "flops": {"tokens": 10, "ref": 1e11, "update_actor": 3e11}}
    shared = {"unshared": [_phases(12, 2, 3, 7)], "shared": [_phases(7, 2, 1, 4)], "generate": [{"step": 6, "gen": 6}]}
    small = {"unshared": [_phases(0.4, 0.2, 0.1, 0.1)], "shared": [_phases(0.3, 0.1, 0.1, 0.1)], "generate": []}
    ours = {"gigabytes": 2.0, "start": 20.0, "others": 0.0, "commit": "0123456789abcdef"}
    return {
        "row": "small_n8",
        "work": vars(WORKS["small_n8"]),
        "machine": {"processor": "a processor", "cpus": 2, "gigabytes": 8},
        "versions": {"verl": "1", "torch": "2", "transformers": "3", "ray": "4"},
        "runs": [
            {"contender": "loop", "round": 0, "steps": shared, **loop},
            {
                "contender": "ours",
                "round": 0,
                "steps": {"ours": [_phases(8, 3, 1, 3.5), _phases(9, 3, 1, 3.5)]},
                **ours,
            },
            {"contender": "ours", "round": 1, "steps": {"ours": [_phases(30, 3, 1, 3.5)]}, **ours},
            {
                "contender": "trl",
                "round": 0,
                "steps": {"trl": [_phases(18, 6, 4, 8)]},
                "gigabytes": 1,
                "versions": {"trl": "9"},
            },
            {"contender": "ours_overhead", "round": 0, "steps": {"ours": [_phases(0.7, 0.2, 0.1, 0.1)]}, **ours},
            {"contender": "loop_overhead", "round": 0, "steps": small, **loop},
        ],
    }


def test_a_row_says_medians_factors_limit_and_overhead(kept):
    text = table.row_table(kept)
    cells = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:]]
        for line in text.splitlines()
        if "|" in line
    }
    # 256 responses of 48 tokens: 12,288; our steps 8, 9, 30 s have the median 9, of which 1.5 s is no phase
    assert cells["ours"] == [
        "9.00 (8.00 to 30.00)",
        "3.00",
        "1.00",
        "3.50",
        "1.50",
        "4096",
        "1365",
        "2.00",
        "20.0",
        "3",
        "",
    ]
    # 4e11 operations at 1e11 a second and the 2 s of the bare rollout
    assert cells["limit"][0] == "6.00"
    assert "2.00 x TRL" in text and "1.50 x the limit" in text and "2.00 times the tokens per second" in text
    assert "0.40 s for verl, Ray" in text
    assert "torch 2" in text and "trl 9" in text and "0123456789ab" in text


def test_the_fit_finds_a_line_and_never_goes_below_nothing():
    x = [1.0, 8.0, 64.0, 512.0]
    fixed, slope = speed_scaling.fit(x, [0.3 + 0.02 * value for value in x])
    assert (fixed, slope) == pytest.approx((0.3, 0.02))
    assert speed_scaling.fit([1.0, 2.0], [1.0, 4.0])[0] == 0.0
    assert speed_scaling.exponent(x, [value**2 for value in x]) == pytest.approx(2.0)
