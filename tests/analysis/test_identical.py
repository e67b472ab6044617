"""Arms whose logs are identical are one arm: counted once by Holm, and named wherever they are shown."""

import json
import math
from pathlib import Path

import pytest
from simulated_runs import write_run, write_study

from Verl.analysis.figures import curves as figures
from Verl.analysis.report.build import build
from Verl.analysis.runs import identical
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.compare import compare, gains
from Verl.analysis.verdicts.factors import pairs_of
from Verl.analysis.verdicts.summary import summary_table
from Verl.design.declared import declared

ROOT = Path(__file__).resolve().parents[2]
PAIR = "tiny_arith"
ARMS = {"grpo_0032_1": 0.1, "grpo_0032_8": 0.3, "arpo_0032_8": 0.1}


def _repeat(folder, arm, copy, seeds, **changes):
    """Runs of `copy` with the logs of `arm`, other timings and a metric of its own; `changes` go into the last line."""
    for seed in seeds:
        source, name = f"{arm}_{PAIR}_seed{seed}", write_run(folder, copy, seed, steps=(0, 100))
        rows = [json.loads(line) for line in (folder / f"{source}.jsonl").read_text().splitlines()]
        own = {"timing_s/step": 9.0, "perf/throughput": 1.0, "actor/perf/cpu_memory_used_gb": 2.0, "replay/queries_seen": 7.0}
        rows = [row | own | {"ledger/total_hours": row["step"] / 100} for row in rows]
        rows[-1] |= changes
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture()
def study(tmp_path):
    write_study(tmp_path, ARMS, range(3), steps=(0, 100), full=True, questions=64)
    return tmp_path


def test_they_are_one_comparison_in_holms_family_and_named(study):
    family = [(PAIR, arm, "grpo_0032_8") for arm in ("arpo_0032_8", "banditpo_0032_8_8", "grpo_0032_1")]
    alone = compare(load_runs(study), family)
    _repeat(study, "arpo_0032_8", "banditpo_0032_8_8", range(3))
    runs = load_runs(study)
    assert runs.same_as[PAIR] == {"banditpo_0032_8_8": "arpo_0032_8"}
    first, repeated, other = compare(runs, family)
    assert [c.adjusted_p for c in (first, other)] == [alone[0].adjusted_p, alone[2].adjusted_p]  # Holm over two, not three
    assert (repeated.adjusted_p, repeated.result, repeated.family) == (first.adjusted_p, first.result, 2)
    assert "ARPO 32×8 and Bandit-PO 32×8 w8 are one comparison" in first.sentence
    assert "comparison of ARPO 32×8 with GRPO 32×8, counted once" in repeated.sentence
    assert "Identical logs" not in other.sentence
    assert sum(p.startswith("banditpo_0032_8_8 on tiny_arith: its logs are those of arpo") for p in runs.problems) == 1
    row = summary_table(runs).set_index("arm")
    assert row.loc["banditpo_0032_8_8", "same_logs_as"] == "arpo_0032_8" and row.loc["arpo_0032_8", "same_logs_as"] == ""
    assert {c.family for c in gains(runs, list(row.index))} == {3}


@pytest.mark.parametrize("copies", [[0], [0, 1]], ids=["one shared seed", "two shared seeds"])
def test_the_arm_with_more_seeds_speaks_for_both(study, copies):
    _repeat(study, "arpo_0032_8", "banditpo_0032_8_8", copies)
    repeated, first = compare(
        load_runs(study), [(PAIR, arm, "grpo_0032_8") for arm in ("banditpo_0032_8_8", "arpo_0032_8")]
    )
    assert first.family == 1 and first.seeds == (0, 1, 2) and first.counted_as is None
    assert repeated.seeds == (0, 1, 2) and repeated.counted_as == ("arpo_0032_8", "grpo_0032_8")
    assert repeated.judged == first.judged and first.judged.family == 1


def test_an_arm_with_the_logs_of_what_it_is_compared_with_is_no_comparison(study):
    _repeat(study, "grpo_0032_8", "grpo_0032_16", range(3))
    same, other = compare(load_runs(study), [(PAIR, arm, "grpo_0032_8") for arm in ("grpo_0032_16", "grpo_0032_1")])
    assert same.result is None and "trained nothing" in same.sentence and other.family == 1


@pytest.mark.parametrize("changes", [{"actor/grad_norm": 1.0000001}, {"eval/test/pass@1": 0.123}])
def test_one_value_that_differs_makes_another_arm(study, changes):
    _repeat(study, "arpo_0032_8", "banditpo_0032_8_8", range(3), **changes)
    assert load_runs(study).same_as[PAIR] == {}


def test_what_all_arms_share_is_no_evidence():
    def signature(series):
        return identical.signature({key: dict(enumerate(values)) for key, values in series.items()})

    before = {"eval/test/pass@1": [0.4], "ledger/total_queries": [0.0, 32.0], "actor/lr": [0.0, 1e-6]}
    assert not identical.same_log(signature(before), signature(before))
    trained = before | {"actor/grad_norm": [0.0, math.nan]}
    assert identical.same_log(signature(trained), signature(trained | {"replay/window_filled": [1.0, 2.0]}))
    assert not identical.same_log(signature(trained), signature(trained | {"actor/grad_norm": [0.0, 1.0]}))
    assert not identical.same_log(signature(trained), signature(trained | {"actor/grad_norm": [0.0, math.nan, 1.0]}))


def test_the_first_study_names_its_identical_arms(tmp_path):
    """Seen there: with 8 rollouts and a window of 8, -0.227 was counted twice and not beyond noise."""
    result = ROOT / "Running-Results/studies/tiny_arith/result"
    runs = load_runs(result)
    assert runs.same_as == {PAIR: {"banditpo_0032_8_8": "arpo_0032_8"}}
    factor = declared().factors["signal"]
    arms = pairs_of(factor, runs.table)
    assert {"arpo_0032_8", "banditpo_0032_8_8"} <= set(arms[PAIR])
    found = [c for c in compare(runs, [(PAIR, arm, "grpo_0032_8") for arm in arms[PAIR]], result) if c.result]
    assert {c.arm for c in found} == {"arpo_0032_8", "banditpo_0032_8_8"} and {c.family for c in found} == {1}
    assert all(c.beyond_noise() for c in found)
    drawn = figures.plot_question(runs, arms, tmp_path / "signal")
    assert any("Identical logs" in note and "arpo_0032_8, banditpo_0032_8_8" in note for note in drawn.notes)


def test_the_page_names_them(study):
    _repeat(study, "arpo_0032_8", "banditpo_0032_8_8", range(3))
    page = build(study)
    assert page.count("<small>counted with ARPO 32×8</small>") == 1 and "logs of ARPO 32×8" in page
