"""How an request study ends, on simulated logs: planted effects, interactions and tunings, and none."""

import json

import numpy as np
import pytest

from tests.analysis.simulated_runs import write_run
from Verl.study import study_cli
from Verl.study.outcome import StudyOutcome
from Verl.study.study_options import read

LR, N = "actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.rollout.n"
GRID = {("8", "1e-4"): "grpo_0032_8", ("8", "3e-5"): "grpo_0032_8_lr-3e-5",
        ("2", "1e-4"): "grpo_0032_2", ("2", "3e-5"): "grpo_0032_2_lr-3e-5"}  # fmt: skip


def request_of(study, *arguments):
    options = study_cli._parser().parse_args(["--pair", "tiny_arith", *arguments])
    return read(study, study.pair("tiny_arith"), options, [])


def outcome_of(request, folder, seeds=(0, 1, 2, 3), axis="steps"):
    arm_of = {arm.name: arm.name for arm in request.arms}
    return StudyOutcome(request, arm_of, seeds, folder, axis, margin=0.02)


def write_grid(folder, gains, seeds=(0, 1, 2, 3), **options):
    rng = np.random.default_rng(5)
    options = {"steps": (0, 20, 40), "questions": 500, "seed_noise": 0.005, "parquet": True, "rng": rng} | options
    for levels, gain in gains.items():
        for seed in seeds:
            write_run(folder, GRID[levels], seed, gain, **options)


@pytest.fixture(scope="module")
def crossed_study():
    from Verl.design import declared

    return request_of(declared.load(), "--base", "grpo_0032_8", "--vary", f"{N}=8,2", "--vary", f"{LR}=1e-4,3e-5", "--cross")


def test_cross_runs_every_combination_and_names_each_by_what_it_changes(crossed_study):
    assert crossed_study.grid == GRID and crossed_study.reference == "grpo_0032_8"
    assert [arm.name for arm in crossed_study.arms] == list(GRID.values())


def test_a_planted_interaction_is_found_and_a_planted_null_is_not(crossed_study, tmp_path):
    planted, null = tmp_path / "planted", tmp_path / "null"
    write_grid(planted, {("8", "1e-4"): 0.1, ("8", "3e-5"): 0.1, ("2", "1e-4"): 0.1, ("2", "3e-5"): -0.15})
    write_grid(null, {("8", "1e-4"): 0.1, ("8", "3e-5"): 0.0, ("2", "1e-4"): 0.1, ("2", "3e-5"): 0.0})
    main_n, main_lr, both = outcome_of(crossed_study, planted).effects()
    assert both.verdict == "worse" and both.low < -0.25 < both.high
    assert main_n.low < -0.125 < main_n.high and main_lr.low < -0.125 < main_lr.high
    main_n, main_lr, both = outcome_of(crossed_study, null).effects()
    assert both.verdict == main_n.verdict == "undecided" and main_lr.verdict == "worse" and main_lr.low < -0.1 < main_lr.high
    said = "\n".join(outcome_of(crossed_study, planted).lines(tmp_path / "figure", "both"))
    assert "n 8 -> 2 x lr 1e-4 -> 3e-5: \N{MINUS SIGN}0.2" in said and "together they add less" in said
    assert {path.suffix for path in (tmp_path / "figure").iterdir()} == {".md", ".pdf", ".png"}
    assert "grpo_0032_2_lr-3e-5" in (tmp_path / "figure" / "both.md").read_text()


def test_at_equal_cost_all_combinations_are_compared_at_what_the_cheapest_spends(crossed_study, tmp_path):
    write_grid(tmp_path, dict.fromkeys(GRID, 0.1))
    outcome = outcome_of(crossed_study, tmp_path, axis="tokens")
    assert len(outcome.effects()) == 3
    said = "\n".join(outcome.lines(tmp_path / "figure", "tokens"))
    assert "ended before the others' 163,840 tokens: grpo_0032_2 (40,960 tokens)" in said


def test_a_combination_without_runs_is_said(crossed_study, tmp_path):
    write_grid(tmp_path, dict.fromkeys(list(GRID)[:3], 0.1))
    assert outcome_of(crossed_study, tmp_path).effects() == []
    assert "are unknown" in outcome_of(crossed_study, tmp_path).crossed_lines()[0]


def test_each_arm_is_compared_at_its_best_on_validation(study, tmp_path):
    """The base is best at its own learning rate, the other arm at another; a value that is best on test alone stays out."""
    request = request_of(study, "--base", "grpo_0032_8", "--vary", f"{N}=2", "--tune", f"{LR}=1e-4,3e-5")
    assert [arm.name for arm in request.arms] == ["grpo_0032_8", "grpo_0032_8_lr-3e-5", "grpo_0032_2", "grpo_0032_2_lr-3e-5"]
    gains = {("8", "1e-4"): 0.2, ("8", "3e-5"): 0.0, ("2", "1e-4"): 0.0, ("2", "3e-5"): 0.2}
    write_grid(tmp_path, gains)
    for seed in range(4):  # as if the arm's other value were better on test, and on test alone
        path = tmp_path / f"grpo_0032_2_tiny_arith_seed{seed}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line | {"eval/test/pass@1": 0.99}) + "\n" for line in lines))
    outcome = outcome_of(request, tmp_path)
    assert {arm: one.value for arm, one in outcome.chosen.items()} == {"grpo_0032_8": "1e-4", "grpo_0032_2": "3e-5"}
    [one] = [one for one in outcome.comparisons().values() if one is not None]
    assert (one.arm, one.base_line) == ("grpo_0032_2_lr-3e-5", "grpo_0032_8") and one.verdict != "better"
    said = "\n".join(outcome.lines(tmp_path / "figure", "tuned"))
    assert "the tuning cost 16 runs, 640 steps, 1,638,400 generated tokens" in said and "not by test" in said
    assert "of these 8 runs, 320 steps" in said


def test_values_that_were_not_all_run_choose_nothing(study, tmp_path):
    request = request_of(study, "--arms", "grpo_0032_8", "grpo_0032_1", "--tune", f"{LR}=1e-4,3e-5")
    for arm in ("grpo_0032_8", "grpo_0032_8_lr-3e-5", "grpo_0032_1"):
        write_run(tmp_path, arm, 0, 0.1, steps=(0, 10))
    said = outcome_of(request, tmp_path, seeds=[0]).lines(tmp_path / "figure", "x")
    assert any("grpo_0032_1 can't be chosen for" in line for line in said)
