"""`--metric`: any key of the jsonl on every plot script; what is unknown, rare or missing is said."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from simulated_runs import write_run, write_study
from test_figures import SCRIPTS, _axes, _check_places

from Verl.analysis.figures import any_metric, cli, curves, levels
from Verl.analysis.runs.table import load_runs
from Verl.design.declared import declared

ROOT = Path(__file__).resolve().parents[2]
PAIR = "tiny_arith"
LONG = "training/rollout_actor_probs_pearson_corr_of_all_responses"


def add(folder, run, values, key="own/number"):
    """One more metric in a run's jsonl, at the steps of `values`."""
    path = folder / f"{run}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | ({key: values[row["step"]]} if row["step"] in values else {}) for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    write_study(folder, {"grpo_0032_1": 0.1, "grpo_0032_8": 0.2}, [0, 1, 2], full=True)
    return folder


@pytest.fixture
def draw(study, tmp_path, capsys):
    def run(name, *arguments):
        status = cli.main([name], ["--result", str(study), "--figure", str(tmp_path / "f"), *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_takes_a_metric_and_names_its_files_after_it(script, study, tmp_path, capsys):
    name = script.stem.removeprefix("plot_")
    pair, factor = declared().pairs["tiny_arith"], declared().factors.get(name)
    everywhere = pair.with_arms(declared().arms)
    for arm in (factor.members if factor.gpu else everywhere.compared(factor))[:2] if factor else ():
        write_run(study, arm, 0, full=True, pair="qwen0.5b_gsm" if factor.gpu else "tiny_arith")
    target = tmp_path / "f"
    wanted = ["eval/test/pass@1"] if name == "generalisation" else ["actor/kl_loss", "eval/test/format"]
    assert cli.main([name], ["--result", str(study), "--figure", str(target), "--metric", *wanted]) == 0
    files = {path.name for path in target.iterdir()}
    assert {f"{name}_{any_metric.file_part(wanted[0])}{'.md' if name == 'table' else '.pdf'}"} <= files
    assert all(any(f"_{any_metric.file_part(metric)}" in file for metric in wanted) for file in files), files
    assert "verdict" not in capsys.readouterr().out


def test_the_drawn_line_is_the_mean_of_the_metric_and_its_interval_is_not_cut(study, draw, monkeypatch):
    kept = _axes(monkeypatch)
    for seed, value in enumerate((5.0, 50.0, 95.0)):
        add(study, f"grpo_0032_8_tiny_arith_seed{seed}", {step: value + step for step in range(0, 101, 10)})
    status, said, _ = draw("baseline", "--metric", "own/number")
    assert status == 0 and "none of its arms logs own/number; nothing drawn" in said and not kept
    status, said, _ = draw("rollouts", "--metric", "own/number", "--axis", "steps")
    assert status == 0
    figure, last = kept
    (ax,) = figure.axes
    assert ax.get_ylabel() == "own: number" and ax.lines[0].get_ydata()[-1] == pytest.approx(150)
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    half = 4.302652729911275 * 45 / 3**0.5
    assert (corners.min(), corners.max()) == pytest.approx((50 - half, 150 + half))
    assert last.axes[0].get_ylabel() == "last own: number"
    assert "grpo_0032_8 on tiny_arith: 50 at step 0 -> 150 at step 100 (3 seeds, 95 % interval 38.21 to 261.8)" in said
    assert "Not drawn: grpo_0032_1 on tiny_arith logs no own/number" in said, "an arm without the metric is named"
    assert "logged at" not in said


def test_missing_in_some_seeds_and_logged_rarely_is_said(study, draw):
    add(study, "grpo_0032_8_tiny_arith_seed1", {50: 1.0})
    add(study, "grpo_0032_8_tiny_arith_seed2", {50: 2.0, 100: float("inf")})
    status, said, _ = draw("advantage", "--metric", "own/number")
    assert status == 0 and "own/number is logged by 2 of 3 seeds" in said
    assert "own/number is logged at some steps only: 2 of 11 steps" in said
    assert "Mean over 2 seeds" in said and "1.5 at step 50 (2 seeds" in said
    assert "own/number is NaN or infinite at 1 step(s)" in said
    # Of our own evaluations, at the first and the last step here.
    for run in study.glob("*.jsonl"):
        add(study, run.stem, {0: 0.1, 100: 0.2}, "eval/test/lenient")
    said = draw("advantage", "--metric", "eval/test/lenient")[1]
    assert "eval/test/lenient is logged at evaluations only: 2 of 11 steps" in said


@pytest.mark.parametrize(
    ("typed", "near"),
    [("actor/kl_los", "actor/kl_loss"), ("format", "eval/test/format"), ("response_length_mean", "train/response_length_mean"),
     ("Actor/Grad_Norm", "actor/grad_norm")],
)  # fmt: skip
def test_an_unknown_metric_is_one_sentence_with_the_nearest_names(draw, tmp_path, typed, near):
    status, said, error = draw("advantage", "--metric", typed)
    assert status == 2 and not said and error.count("\n") == 1
    assert error.startswith(f"--metric {typed}: none of the runs in ") and near in error.split("nearest are")[1]
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("typed", ["step", "seed", "arm", "zzzz"])
def test_what_is_no_metric_is_refused(draw, typed):
    status, _, error = draw("advantage", "--metric", typed)
    assert status == 2 and error.count("\n") == 1


def test_a_table_of_a_metric(draw, tmp_path):
    assert draw("table", "--metric", "actor/kl_loss")[0] == 0
    table = pd.read_csv(tmp_path / "f" / "table_actor-kl_loss.csv")
    assert list(table["arm"]) == ["grpo_0032_1", "grpo_0032_8"] and list(table["first_step"]) == [10, 10]
    assert list(table["change"]) == pytest.approx([0.009, 0.009])
    text = (tmp_path / "f" / "table_actor-kl_loss.md").read_text()
    assert "| tiny_arith | grpo_0032_8 | 3 | 0.001 (10) | 0.01 (100) |" in text


def test_pass_at_1_requested_by_name_is_drawn_as_ever(study, draw, tmp_path, monkeypatch):
    kept = _axes(monkeypatch)
    assert draw("advantage", "--metric", "eval/test/pass@1", "--axis", "steps")[0] == 0
    assert draw("advantage", "--axis", "steps")[0] == 0
    asked, default = (figure.axes[-1] for figure in kept if figure.axes[-1].get_ylabel() == "test Pass@1")
    assert all((a.get_ydata() == b.get_ydata()).all() for a, b in zip(asked.lines, default.lines))


def test_labels_are_words():
    labels = {"train/reward_mean": "mean reward", "eval/validation/flexible": "validation flexible"}
    labels |= {"eval/test/gsm8k/pass@1": "test gsm8k Pass@1", "ledger/wasted_responses": "ledger: wasted responses"}
    assert {key: any_metric.label_of(key) for key in labels} == labels
    assert any_metric.file_part("eval/test/pass@1") == "eval-test-pass@1"


@pytest.mark.parametrize("values", [{0: 1e-8, 100: 4.4e-7}, {0: 123456.0, 100: 3e6}, {0: -12.5, 100: 1250.0}])
def test_nothing_overlaps_whatever_the_units(tmp_path, monkeypatch, values):
    kept = _axes(monkeypatch)
    pairs = (PAIR, "qwen0.5b_gsm", "llama1b_gsm", "olmo1b_gsm")
    arms = ["grpo_0032_1", "grpo_0032_8", "grpo_0032_16", "grpo_0032_32"]
    for pair in pairs:
        write_study(tmp_path, dict.fromkeys(arms, 0.2), [0, 1], pair=pair, steps=(0, 100))
    for path in tmp_path.glob("*.jsonl"):
        add(tmp_path, path.stem, values, LONG)
    runs, panel = load_runs(tmp_path), any_metric.panel_of(LONG)
    assert panel.label.count("\n")
    for some in (pairs[:1], pairs[:2], pairs):
        of_pairs = dict.fromkeys(some, arms)
        curves.plot_question(runs, of_pairs, tmp_path / "x", "A title", panels=[panel])
        _check_places(kept[-1])
        levels.plot_levels(runs, of_pairs, tmp_path / "x", "A title", "rollouts", panel)
        _check_places(kept[-1])


def test_make_figures_takes_a_metric(study, tmp_path):
    command = ["bash", str(ROOT / "Running-Results/make_figures.sh"), "--result", str(study), "--figure", str(tmp_path / "f")]
    done = subprocess.run([*command, "--metric", "actor/grad_norm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "f").iterdir()}
    assert {"advantage_actor-grad_norm.pdf", "rollouts_actor-grad_norm_final.png", "table_actor-grad_norm.md"} <= files


def test_a_script_works_from_a_shell(study, tmp_path):
    script = ROOT / "Running-Results" / "plot_advantage.py"
    command = [sys.executable, str(script), "--result", str(study), "--figure", str(tmp_path), "--metric", "actor/klloss"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "actor/kl_loss" in done.stderr and "Traceback" not in done.stderr
