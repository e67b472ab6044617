"""Figures: the same bytes from the same runs, what is missing is named, one look per arm, and the command lines."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors
from simulated_runs import write_run, write_study

from Verl.analysis import style
from Verl.analysis.figures import curves as figures
from Verl.analysis.figures import levels
from Verl.analysis.figures.run_figure import draw_run
from Verl.analysis.runs.run_file import LEDGER
from Verl.analysis.runs.table import load_runs
from Verl.analysis.style import arm_label, arm_look, arm_looks
from Verl.analysis.verdicts.factors import arms_of, pairs_of
from Verl.design import declared as design
from Verl.design.arms import OVERVIEWS
from Verl.design.declared import declared

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "Running-Results").glob("plot_*.py"))
PAIR = "tiny_arith"


def _run(*command, **environment):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=os.environ | environment, cwd=ROOT
    )


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    write_study(folder, {"grpo_0032_1": 0.1, "grpo_0032_8": 0.2}, [0, 1, 2], parquet=True)
    return folder


def _axes(monkeypatch):
    """Keeps the figures that are saved, to look at what was drawn."""
    kept = []
    save = figures.save
    for module in (figures, levels):
        monkeypatch.setattr(module, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    return kept


def test_the_same_runs_give_the_same_bytes_in_any_process(study, tmp_path):
    files = []
    for number, hash_seed in enumerate(("0", "1")):
        target = tmp_path / f"figures{number}"
        (tmp_path / f"rc{number}").mkdir()
        (tmp_path / f"rc{number}" / "matplotlibrc").write_text(f"font.size: {8 + 9 * number}\n")  # is not ours to obey
        done = _run(
            sys.executable,
            ROOT / "Running-Results" / "plot_advantage.py",
            "--result",
            study,
            "--figure",
            target,
            PYTHONHASHSEED=hash_seed,
            MATPLOTLIBRC=str(tmp_path / f"rc{number}"),
            TZ=f"UTC{number}",
        )
        assert done.returncode == 0, done.stderr
        files.append({path.name: path.read_bytes() for path in target.iterdir()})
    assert files[0] == files[1]
    assert {"advantage.pdf", "advantage.png"} <= set(files[0])
    assert b"CreationDate" not in files[0]["advantage.pdf"]


def test_changed_runs_change_the_bytes(study, tmp_path):
    arms = {PAIR: ["grpo_0032_1"]}
    first = figures.plot_question(load_runs(study), arms, tmp_path / "a").files[1].read_bytes()
    write_run(study, "grpo_0032_1", 3, gain=0.3)
    assert figures.plot_question(load_runs(study), arms, tmp_path / "a").files[1].read_bytes() != first


def test_a_missing_run_is_named_in_the_figure_and_not_drawn(study, tmp_path, monkeypatch):
    kept = _axes(monkeypatch)
    drawn = figures.plot_question(load_runs(study), {PAIR: ["grpo_0032_1", "arpo_0032_8"]}, tmp_path / "x")
    (note,) = [note for note in drawn.notes if "arpo_0032_8" in note]
    assert "No run found" in note and "tiny_arith" in note
    assert any(note in text.get_text().replace("\n", " ") for text in kept[0].texts)
    assert [len(ax.lines) for ax in kept[0].axes] == [1, 1]
    assert [text.get_text() for text in kept[0].legends[0].texts] == ["base line 32×1"]


def test_a_missing_run_is_named_on_the_console(study, tmp_path):
    done = _run(sys.executable, ROOT / "Running-Results" / "plot_rollouts.py", "--result", study, "--figure", tmp_path)
    assert done.returncode == 0 and "grpo_0032_64" in done.stdout and "No run found" in done.stdout
    done = _run(
        sys.executable,
        ROOT / "Running-Results" / "plot_rollouts.py",
        "--result",
        tmp_path / "none",
        "--figure",
        tmp_path,
    )
    assert done.returncode == 1 and "no run found" in done.stderr


def test_the_drawn_line_and_band_are_mean_and_t_interval(study, tmp_path, monkeypatch):
    kept, runs = _axes(monkeypatch), load_runs(study)
    figures.plot_question(runs, {PAIR: ["grpo_0032_8"]}, tmp_path / "x", axis="queries")
    rows = runs.table[runs.table["arm"] == "grpo_0032_8"]
    test_axes = kept[0].axes[1]
    wide = rows.pivot(index="step", columns="seed", values="eval/test/pass@1")
    line = test_axes.lines[0]
    assert line.get_ydata() == pytest.approx(wide.mean(axis=1).to_numpy())
    assert line.get_xdata() == pytest.approx(wide.index.to_numpy() * 32)
    half = 4.302652729911275 * wide.std(axis=1, ddof=1) / np.sqrt(3)
    corners = test_axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.max() == pytest.approx((wide.mean(axis=1) + half).clip(upper=1).max())
    assert corners.min() == pytest.approx((wide.mean(axis=1) - half).clip(lower=0).min())


@pytest.mark.parametrize("axis", figures.AXES)
def test_every_budget_can_be_the_axis(study, tmp_path, monkeypatch, axis):
    kept, runs = _axes(monkeypatch), load_runs(study)
    figures.plot_question(runs, {PAIR: ["grpo_0032_8"], "another": []}, tmp_path / "x", axis=axis)
    rows = runs.table[runs.table["arm"] == "grpo_0032_8"]
    spent = rows.groupby("step")[{"steps": "step"}.get(axis) or LEDGER[axis]].mean()
    assert len(kept[0].axes) == 4 and kept[0].axes[0].lines[0].get_xdata() == pytest.approx(spent.to_numpy())
    assert kept[0].axes[2].get_xlabel() == figures.AXES[axis]


def test_verls_console_logs_can_be_plotted(tmp_path):
    for arm, last in (("grpo_0032_1", 0.4), ("grpo_0032_8", 0.5)):
        lines = [
            f"(TaskRunner pid=1) step:{step} - critic/score/mean:{0.3 + step * last / 900} - response_length/mean:120.0 - "
            f"timing_s/step:30.0 - val-core/openai/gsm8k/reward/mean@1:{0.3 + step * (last - 0.3) / 300}"
            for step in (0, 100, 200, 300)
        ]
        (tmp_path / f"{arm}_qwen0.5b_gsm_seed0.log").write_text("\n".join(lines) + "\n")
    script = ROOT / "Running-Results" / "plot_rollouts.py"
    done = _run(sys.executable, script, "--result", tmp_path, "--figure", tmp_path / "f", "--axis", "steps", "tokens")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "f").iterdir()} >= {"rollouts.png", "rollouts_tokens.pdf"}
    assert "+0.100 was seen" in done.stdout and "train Pass@1 is the mean reward of the training batch" in done.stdout


def test_one_seed_has_no_band_and_the_note_says_so(tmp_path, monkeypatch):
    kept = _axes(monkeypatch)
    write_run(tmp_path, "grpo_0032_8", 0)
    drawn = figures.plot_question(load_runs(tmp_path), {PAIR: ["grpo_0032_8"]}, tmp_path / "x")
    assert not kept[0].axes[0].collections and "One seed" in drawn.notes[0]


def test_a_logarithmic_axis_draws_no_level_before_the_first_cost(tmp_path, monkeypatch):
    kept = _axes(monkeypatch)
    for arm in ("grpo_0032_1", "grpo_0032_64"):
        write_run(tmp_path, arm, 0)
    arms = {PAIR: ["grpo_0032_1", "grpo_0032_64"]}
    drawn = figures.plot_question(load_runs(tmp_path), arms, tmp_path / "x", axis="tokens")
    assert kept[0].axes[0].get_xscale() == "log" and any("Logarithmic" in note for note in drawn.notes)
    assert all((line.get_xdata() > 0).all() for line in kept[0].axes[0].lines)


def _boxes(figure):
    renderer = figure.canvas.get_renderer()
    boxes = [legend.get_window_extent(renderer) for legend in figure.legends]
    boxes += [text.get_window_extent(renderer) for text in [*figure.texts, figure._suptitle]]
    boxes += [ax.get_tightbbox(renderer) for ax in figure.axes]
    return list({tuple(box.extents): box for box in boxes}.values())


def _check_places(figure):
    """Nothing overlaps and nothing leaves the page."""
    boxes, page = _boxes(figure), figure.bbox
    for box in boxes:
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            shared_x = min(one.x1, other.x1) - max(one.x0, other.x0)
            shared_y = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert shared_x <= 1 or shared_y <= 1, (one, other)


def test_nothing_overlaps_and_nothing_leaves_the_page(tmp_path, monkeypatch):
    kept = _axes(monkeypatch)
    tradeoff, larger = declared().factors["tradeoff"], declared().factors["replay_larger"]
    pairs = ("tiny_arith", "qwen0.5b_gsm", "llama1b_gsm", "olmo1b_gsm", "olmo1b_math", "llama1b_math")
    for pair in pairs:  # the largest arm has no run
        arms = [*arms_of(tradeoff, pair, [])[:-1], *arms_of(larger, pair, [])]
        write_study(tmp_path, dict.fromkeys(arms, 0.2), [0, 1], pair=pair, steps=(0, 500, 1000))
    runs = load_runs(tmp_path)
    for some in (["tiny_arith"], ["tiny_arith", "olmo1b_gsm"], None):
        figures.plot_question(runs, pairs_of(tradeoff, runs.table, some), tmp_path / "x", "A title", "tokens")
        _check_places(kept[-1])
        levels.plot_levels(runs, pairs_of(tradeoff, runs.table, some), tmp_path / "x", "A title", "queries")
        _check_places(kept[-1])
    figures.plot_question(runs, pairs_of(larger, runs.table), tmp_path / "x", "A title")
    _check_places(kept[-1])


def test_levels_show_the_last_test_score_of_every_arm_in_order(study, tmp_path, monkeypatch):
    kept, runs = _axes(monkeypatch), load_runs(study)
    arms = pairs_of(declared().factors["rollouts"], runs.table)
    drawn = levels.plot_levels(runs, arms, tmp_path / "x", "A title", "rollouts")
    (ax,) = kept[0].axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "8", "16", "32", "64"]
    last = runs.table[runs.table["step"] == 100].groupby("arm")["eval/test/pass@1"].mean()
    assert [line.get_ydata()[0] for line in ax.lines[:2]] == pytest.approx([last["grpo_0032_1"], last["grpo_0032_8"]])
    assert any("grpo_0032_64" in note and "No run found" in note for note in drawn.notes)


def test_every_declared_arm_has_its_own_look_and_it_never_changes():
    arms = list(declared().arms)
    assert len({str(arm_look(arm)) for arm in arms}) == len({*map(arm_label, arms)}) == len(arms)
    assert arm_look("grpo_0032_1").colour == "#000000"
    assert arm_look("another_reward") == arm_look("another_reward")


@pytest.fixture
def more_arms(monkeypatch):
    """The design with nine arms more, of one new factor with the base line, for which nobody has chosen a look."""
    study = declared()
    arms = {f"grpo_0032_{n}": design.Arm(f"grpo_0032_{n}", "grpo", 32, n) for n in range(3, 21, 2)}
    factor = dataclasses.replace(study.factors["rollouts"], name="more", arms=("grpo_0032_1", "grpo_0032_64", *arms))
    larger = dataclasses.replace(study, arms=study.arms | arms, factors=study.factors | {"more": factor})
    before = {arm: arm_look(arm) for arm in study.arms}
    monkeypatch.setattr(style, "declared", lambda: larger)
    style._declared_looks.cache_clear()
    yield list(arms), before
    style._declared_looks.cache_clear()


def test_arms_without_a_chosen_look_get_their_own(more_arms):
    new, before = more_arms
    assert {arm: arm_look(arm) for arm in before} == before
    of_figure = arm_looks(["grpo_0032_1", "grpo_0032_64", *new])
    assert of_figure == {arm: arm_look(arm) for arm in of_figure}  # the same in every figure
    assert len({str(look) for look in [*before.values(), *map(arm_look, new)]}) == len(before) + len(new)
    assert len({look.marker for look in of_figure.values()}) == len(of_figure)


def test_arms_that_nobody_declared_can_be_distinguished_in_a_figure():
    looks = arm_looks(["grpo_0032_8", *(f"grpo_0032_8_lr-{i}e-6" for i in range(8))])
    assert len({look.marker for look in looks.values()}) == len(looks)
    assert looks["grpo_0032_8"] == arm_look("grpo_0032_8")


@pytest.mark.parametrize("pair", ["tiny_arith", "qwen0.5b_gsm"])
@pytest.mark.parametrize("factor", declared().factors.values(), ids=lambda factor: factor.name)
def test_arms_of_one_factor_differ_in_grey(factor, pair):
    arms = arms_of(factor, pair, list(declared().arms))
    assert len({arm_look(arm).marker for arm in arms}) == len(arms)
    assert all(max(colors.to_rgb(arm_look(arm).colour)) <= 0.95 for arm in arms)


def test_draw_run_says_where_and_what(study, tmp_path):
    line = draw_run(study, "grpo_0032_8_tiny_arith_seed1", tmp_path / "figure")
    assert (tmp_path / "figure" / "grpo_0032_8_tiny_arith_seed1.png").exists()
    assert (tmp_path / "figure" / "grpo_0032_8_tiny_arith_seed1.pdf").exists()
    table = load_runs(study).table
    values = table[table["run"] == "grpo_0032_8_tiny_arith_seed1"]["eval/test/pass@1"].to_list()
    assert f"test Pass@1 {values[0]:.3f} at step 0 -> {values[-1]:.3f} at step 100" in line and "\n" not in line
    assert "95 % interval over 256 questions" in line
    with pytest.raises(FileNotFoundError, match="no run 'absent'"):
        draw_run(study, "absent", tmp_path)


def test_run_figure_starts_fast_and_without_torch_or_verl(study, tmp_path):
    heavy = "[m for m in ('torch', 'verl', 'ray', 'scipy') if m in sys.modules]"
    code = f"import sys, time; import Verl.analysis.figures.run_figure; print({heavy}, time.process_time() < 6)"
    done = _run(sys.executable, "-c", code)  # 1 s; the processor's time, because a busy machine must not fail the tests
    assert done.stdout.strip() == "[] True", done.stderr
    done = _run(
        sys.executable,
        "-m",
        "Verl.analysis.figures.run_figure",
        "grpo_0032_1_tiny_arith_seed0",
        "--result",
        study,
        "--figure",
        tmp_path,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    done = _run(sys.executable, "-m", "Verl.analysis.figures.run_figure", "absent", "--result", study, "--figure", tmp_path)
    assert done.returncode == 1 and "absent" in done.stderr and "Traceback" not in done.stderr


def test_make_figures_draws_all_from_anywhere_and_twice_the_same(study, tmp_path):
    write_run(study, "arpo_0032_8", 0)
    command = ["bash", ROOT / "Running-Results" / "make_figures.sh", "--result", study, "--figure"]
    seen = []
    for number in (0, 1):
        done = subprocess.run(
            [*map(str, command), str(tmp_path / str(number))], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        seen.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
    assert seen[0] == seen[1]
    assert {script.stem.removeprefix("plot_") for script in SCRIPTS} == {*declared().factors, *OVERVIEWS}
    drawn = [factor for factor in declared().factors.values() if not factor.optional or factor.name == "signal"]  # arpo
    for factor in drawn:
        assert {f"{factor.name}.pdf", f"{factor.name}.png"} <= set(seen[0]), factor.name
        assert bool(factor.level) == (f"{factor.name}_final.pdf" in seen[0])
        assert f"{factor.name}_dynamics.pdf" not in seen[0]  # these runs log none of it
    assert {"forest.pdf", "frontier.png", "generalisation.pdf", "fits.csv"} <= set(seen[0])
    assert "controls.pdf" not in seen[0]  # none of them was run
    assert {"table.csv", "table.md"} <= set(seen[0])
    failing = subprocess.run(
        [*map(str, command[:2]), "--result", str(tmp_path / "none")], capture_output=True, text=True
    )
    assert failing.returncode == 1 and "at least one figure" in failing.stderr
