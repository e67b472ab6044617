"""A study declared before it is seen: the file, and what the report says of runs that keep or break the declaration."""

import json

import numpy as np
import pytest
from study_helpers import write_final_answers

from Verl.analysis.report import build
from Verl.design import freeze
from Verl.errors import UserError
from Verl.study import design_cli, shipped

ARMS = ["grpo_0032_1", "grpo_0032_8", "grpo_0064_8"]
FREEZE = ["freeze", "--name", "mine", "--question", "Do more rollouts pay?", "--pair", "tiny_arith", "--arms", *ARMS[1:]]


def frozen_study(tmp_path, *more):
    """Declares the study; the folder of its runs, which is empty."""
    result = tmp_path / "result"
    result.mkdir(exist_ok=True)
    status = design_cli.main([*FREEZE, "--result", str(result), "--out", str(tmp_path / freeze.NAME), "--steps", "2", *more])
    assert status == 0
    return result


def write_runs(result, seeds, chances=(0.5, 0.8, 0.5), step=2):
    """Finished runs as declared: with the declared configurations and today's training code."""
    for arm, chance in zip(ARMS, chances):
        for seed in seeds:
            rng = np.random.default_rng([seed, len(arm), int(100 * chance)])
            write_final_answers(result, arm, seed, rng.random((300, 4)) < chance + 0.005 * rng.standard_normal(), step)
            path = result / f"{arm}_tiny_arith_seed{seed}" / "run.json"
            config_hash = shipped.prepare(f"run_{arm}_tiny_arith.sh").hash
            record = {"config_hash": config_hash, "stands_on": {"code": freeze.identity.code()}}
            path.write_text(json.dumps(json.loads(path.read_text()) | record))


def part_of(result, margin=0.02):
    return build.context(result, margin)["declared"]


def test_a_study_that_keeps_its_declaration_has_confirmatory_verdicts_and_no_deviation(tmp_path, capsys):
    result = frozen_study(tmp_path)
    assert "2 arms against grpo_0032_1 on tiny_arith" in capsys.readouterr().out
    write_runs(result, range(3))
    part = part_of(result)
    assert part.deviations == () and part.frozen.intact and part.frozen.seeds == (0, 1, 2)
    better, same = part.comparisons
    assert better.verdict == "better" and same.verdict in ("undecided", "equivalent") and better.judged.family == 2
    page = build.build(result)
    assert "These verdicts are confirmatory" in page and "Do more rollouts pay?" in page and part.frozen.hash[:12] in page
    assert "No deviation from the declaration" in page
    # the comparison of the two other arms, and the rest of what the page compares, were not declared
    assert build.context(result)["exploratory"] > 0


def test_every_deviation_is_named(tmp_path):
    result = frozen_study(tmp_path)
    write_runs(result, range(4))
    for path in (*result.glob("grpo_0064_8*.jsonl"), result / "grpo_0032_8_tiny_arith_seed1.jsonl"):
        path.unlink()
    write_final_answers(result, "grpo_0128_8", 0, np.ones((300, 4)))
    run_json = result / "grpo_0032_8_tiny_arith_seed0" / "run.json"
    record = json.loads(run_json.read_text())
    run_json.write_text(json.dumps(record | {"config_hash": "another", "stands_on": {"code": "another"}}))
    write_final_answers(result, "grpo_0032_1", 2, np.ones((300, 4)), step=4)
    found = " | ".join(part_of(result, margin=0.05).deviations)
    for text in (
        "no run of grpo_0064_8", "grpo_0032_8 lacks seed 1", "grpo_0032_8 has seeds that were not declared: 3",
        "grpo_0032_8 was run with another configuration", "grpo_0032_1 was last evaluated at step 4, not 2",
        "arms that were not declared: grpo_0128_8", "1 version(s) of the training code other than the declared one",
        "the page's margin is 0.05, 0.02 was declared",
    ):  # fmt: skip
        assert text in found, text


def test_seeds_that_were_not_declared_do_not_count(tmp_path):
    result = frozen_study(tmp_path, "--seeds", "0", "1")
    write_runs(result, range(4))
    assert {one.seeds for one in part_of(result).comparisons} == {(0, 1)}


def test_a_changed_file_and_another_analysis_are_noticed(tmp_path, monkeypatch):
    result = frozen_study(tmp_path)
    write_runs(result, range(3))
    path = tmp_path / freeze.NAME
    path.write_text(path.read_text().replace("margin: 0.02", "margin: 0.2"))
    monkeypatch.setattr(freeze, "analysis_version", lambda: "another")
    found = " | ".join(part_of(result).deviations)
    assert "the file was changed after it was written" in found and "the analysis is another version" in found


def test_runs_that_were_there_already_are_in_the_file(tmp_path):
    (tmp_path / "result").mkdir()
    write_final_answers(tmp_path / "result", "grpo_0032_8", 0, np.ones((300, 4)))
    result = frozen_study(tmp_path)
    assert freeze.read(tmp_path / freeze.NAME).seen == ("grpo_0032_8_tiny_arith_seed0",)
    write_runs(result, range(3))
    assert part_of(result).deviations == ("runs that were there when it was declared: grpo_0032_8_tiny_arith_seed0",)


def test_a_stopping_rule_is_declared_and_followed_look_by_look(tmp_path):
    result = frozen_study(tmp_path, "--until-decided", "--max-seeds", "5", "--margin", "0.06")
    write_runs(result, range(3))
    part = part_of(result, 0.06)
    assert part.decisions["grpo_0032_8"] == ("better", "better after 3 seeds")
    write_runs(result, range(5))
    part = part_of(result, 0.06)
    assert not any("seeds that were not declared" in text for text in part.deviations)
    assert part.decisions["grpo_0032_8"] == ("better", "better after 3 seeds")


def test_a_declaration_is_not_written_twice_and_slips_are_one_sentence(tmp_path, capsys):
    frozen_study(tmp_path)
    again = [*FREEZE, "--out", str(tmp_path / freeze.NAME), "--steps", "2"]
    assert design_cli.main(again) == 2 and "a declaration is not changed" in capsys.readouterr().err
    nothing = [*FREEZE[:-2], "grpo_0032_1", "--out", str(tmp_path / "other.yaml")]
    assert design_cli.main(nothing) == 2 and "nothing to compare" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="can't be read as a declared study"):
        freeze.read(tmp_path / "bad.yaml")
