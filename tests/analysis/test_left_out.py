"""A factor that goes beyond the published grid is left out of figures and report until one of its own arms was run."""

from tests.analysis.simulated_runs import write_run
from Verl.analysis.report.build import _design
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.factors import arms_of
from Verl.design.declared import declared

FACTORS = declared().factors


def test_published_arms_alone_do_not_bring_a_further_factor_in():
    published = ["grpo_0032_1", "grpo_0032_8"]
    assert arms_of(FACTORS["few_rollouts"], "tiny_arith", published) == []
    assert arms_of(FACTORS["kl"], "tiny_arith", published) == []
    with_one = arms_of(FACTORS["few_rollouts"], "tiny_arith", [*published, "grpo_0032_2"])
    assert with_one == ["grpo_0032_1", "grpo_0032_2", "grpo_0032_4", "grpo_0032_8"]


def test_what_only_the_reference_of_a_factor_has_is_not_enough():
    """Two updates per round belong to one factor, four to three: as an arm of the first, as the reference of the others."""
    present = ["grpo_0032_8", "grpo_0032_8_updates4"]
    assert arms_of(FACTORS["updates"], "tiny_arith", present)
    assert arms_of(FACTORS["clip"], "tiny_arith", present) == arms_of(FACTORS["ratio"], "tiny_arith", present) == []


def test_the_report_misses_arms_of_the_factors_that_it_shows(tmp_path):
    for arm in ("grpo_0032_8", "grpo_0032_8_kl0"):
        write_run(tmp_path, arm, 0, steps=(0, 10))
    (of_pair,) = _design(load_runs(tmp_path), tmp_path)
    titles = {one["title"] for one in of_pair["factors"]}
    assert FACTORS["kl"].title in titles and FACTORS["clip"].title not in titles
    assert {"grpo_0032_8_kl0.01", "grpo_0032_64"} <= set(of_pair["absent"])
    assert not any("updates" in arm or "entropy" in arm for arm in of_pair["absent"])
    assert of_pair["expected"] == len(of_pair["absent"]) + 2


def test_the_report_names_the_source_of_what_was_found(tmp_path):
    for arm in ("grpo_0032_8", "grpo_0032_8_kl0"):
        write_run(tmp_path, arm, 0, steps=(0, 10))
    (of_pair,) = _design(load_runs(tmp_path), tmp_path)
    sources = {one["title"]: one["source"] for one in of_pair["factors"]}
    assert sources[FACTORS["kl"].title] == FACTORS["kl"].source != ""
    assert sources[FACTORS["rollouts"].title] == ""
