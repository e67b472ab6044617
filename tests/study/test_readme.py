"""The README's table of factors says what the design and the plan say."""

import itertools
import re

import pytest

from Verl.design.declared import script_name
from Verl.study import design_text, shipped

PAIR = "qwen0.5b_gsm"


@pytest.fixture(scope="module")
def rows(root) -> dict[str, list[str]]:
    """Factors of a row: its other columns."""
    table = (root / "README.md").read_text().split("| factor | question |")[1].split("\n\n")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {factors.strip(): [column.strip() for column in rest] for factors, *rest in lines}


def names(text: str) -> list[str]:
    """What stands between backticks, with its braces written out."""
    found = []
    for name in re.findall(r"`([^`]+)`", text):
        parts = [part.split(",") if i % 2 else [part] for i, part in enumerate(re.split(r"[{}]", name))]
        found += ["".join(one) for one in itertools.product(*parts)]
    return found


def test_a_row_names_a_factor_with_its_arms(study, rows):
    assert rows
    for factors, (_, arms, _, cpu_hours) in rows.items():
        assert float(cpu_hours) > 0
        assert names(factors) and all(name in study.factors for name in names(factors)), factors
        assert all(name in study.arms for name in names(arms) if not name[0].isdigit()), arms


@pytest.mark.slow
def test_hours_on_the_a100_are_the_plan_s(study, rows, tmp_path):
    pair = study.pairs[PAIR]
    prepared = {name: shipped.prepare(script_name(name, PAIR)) for name in pair.arms}
    options = {"steps": 100, "seeds": 1, "result_dir": tmp_path, "detectable": study.detectable, "seed_std": False,
               "machine": design_text.machine_with(study, pair, None, None)}  # fmt: skip
    for factors, (_, _, hours, _) in rows.items():
        scripted = [name for factor in names(factors) for name in pair.compared(study.factors[factor])]
        arms = [study.arms[name] for name in dict.fromkeys(scripted)]
        expected = design_text.CostPlan(study, pair, [(arm, prepared[arm.name]) for arm in arms], options).per_100_steps
        assert hours == (f"{expected:.2g}" if arms else ""), factors
