"""The figures over all factors: planted truths come out of the logs as the right verdict, and every size of study is drawn."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from simulated_runs import write_run, write_study
from test_figures import _check_places

from Verl.analysis.figures import cli, frontier
from Verl.analysis.figures.curves import our_style
from Verl.analysis.figures.fitted import draw_fits, fits_of
from Verl.analysis.figures.forest import PAGE_HEIGHT, Column, ForestInterval, Group, Row, draw_forest, limit_of
from Verl.analysis.figures.forests import fit_effects, forest_effects
from Verl.analysis.report.build import build
from Verl.analysis.runs.drawn import why_unlike
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.compare import compare
from Verl.analysis.verdicts.generalisation import train_and_test
from Verl.analysis.verdicts.saturation import fitted_metric, study_fits

PAIR, BASE = "tiny_arith", "grpo_0032_1"


def curve(start, asymptote, midpoint, exponent=2.0):
    return lambda split, step: start + (asymptote - start) / (1 + (midpoint / step) ** exponent) if step else start


PLANTED = {
    BASE: curve(0.45, 0.75, 25),
    "grpo_0032_8": curve(0.45, 0.88, 25),  # ends higher
    "grpo_0032_16": curve(0.45, 0.75, 11),  # learns faster
    "grpo_0032_32": curve(0.45, 0.75, 25),  # neither
    "grpo_0032_64": curve(0.45, 0.88, 11),  # both
    "onerpo_0032_1_7": lambda split, step: 0.45,  # nothing
    "grpo_0064_8": lambda split, step: 0.45 + 0.002 * step,  # still rising at the end
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(3)
    for arm, truth in PLANTED.items():
        for seed in range(4):
            write_run(folder, arm, seed, truth=truth, steps=range(0, 101, 5), questions=512, rng=rng, full=arm == BASE)
    return folder


@pytest.fixture(scope="module")
def fits(planted):
    return study_fits(load_runs(planted))


@pytest.mark.parametrize(
    ("arm", "words"),
    [("grpo_0032_8", "ends higher"), ("grpo_0032_16", "learns faster"), ("grpo_0032_32", "undecided"),
     ("grpo_0032_64", "learns faster, ends higher")],
)  # fmt: skip
def test_a_planted_asymptote_and_a_planted_speed_are_distinguished(fits, arm, words):
    found = fits.comparisons[PAIR, arm, BASE]
    assert found.words == words
    assert found.asymptote.low <= PLANTED[arm]("test", 1e9) - 0.75 <= found.asymptote.high
    midpoint = 11 if "faster" in words else 25
    assert np.exp(found.midpoint.low) <= midpoint / 25 <= np.exp(found.midpoint.high)


def test_what_cannot_be_fitted_is_named_with_its_reason(planted, tmp_path, capsys):
    assert cli.main(["fits"], ["--result", str(planted), "--figure", str(tmp_path), "--formats", "png"]) == 0
    said, table = capsys.readouterr().out, pd.read_csv(tmp_path / "fits.csv").set_index("arm")
    assert "onerpo_0032_1_7 is not fitted: it does not rise beyond its noise" in said
    assert "grpo_0064_8 is not fitted: its end is open" in said
    assert "GRPO 32×16 against base line 32×1: asymptote" in said and ": learns faster." in said
    open_end = table.loc["grpo_0064_8"]
    assert open_end["not_fitted"].startswith("its end is open") and np.isnan(open_end["asymptote"])
    row = table.loc[BASE]
    assert row["asymptote_low"] < 0.75 < row["asymptote_high"] and row["midpoint_low"] < 25 < row["midpoint_high"]
    assert {path.name for path in tmp_path.iterdir()} == {"fits.csv", "fits.png", "fits_effects.png"}


def test_a_curve_over_tokens_is_fitted_in_tokens(planted, fits):
    by_steps, by_tokens = (one.fits[PAIR, "grpo_0032_16"].fit for one in (fits, study_fits(load_runs(planted), "tokens")))
    assert by_tokens.midpoint == pytest.approx(by_steps.midpoint * 32 * 16 * 16, rel=0.02)
    assert by_tokens.asymptote == pytest.approx(by_steps.asymptote, abs=0.01)


def test_with_few_evaluations_the_training_responses_are_fitted():
    few = {"arm": [BASE] * 8, "step": range(8), "train/pass@1": [np.nan, *[0.5] * 7]}
    few["eval/test/pass@1"] = [0.4, *[np.nan] * 6, 0.5]
    assert fitted_metric(pd.DataFrame(few)) == "train/pass@1"
    assert fitted_metric(pd.DataFrame({**few, "eval/test/pass@1": [0.4] * 8})) == "eval/test/pass@1"
    assert fitted_metric(pd.DataFrame({"arm": [BASE], "step": [1]})) == "eval/test/pass@1"


def test_what_arms_draw_otherwise_does_not_compare_them(tmp_path, capsys):
    """Training Pass@1 at another temperature, or of the queries that dynamic sampling kept, says nothing of the policy."""
    arms = ("grpo_0032_8", "grpo_0032_8_temperature0.6", "grpo_0032_8_dynamic")
    for arm in arms:
        for seed in range(3):
            run = write_run(tmp_path, arm, seed, truth=curve(0.45, 0.9, 25), steps=range(0, 101, 5), questions=2048, full=True)
            path = tmp_path / f"{run}.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            for row in rows:
                drawn = row["eval/test/pass@1"] if row["step"] in (0, 100) else row.pop("eval/test/pass@1")
                kept = {"train/pass@1": drawn - 0.002 * row["step"], "train/drawn_pass@1": drawn}
                row |= (kept if arm.endswith("dynamic") else {"train/pass@1": drawn}) if row["step"] else {}
            path.write_text("\n".join(map(json.dumps, rows)) + "\n")
            if arm.endswith("0.6"):
                config = yaml.safe_load((tmp_path / run / "config.yaml").read_text())
                config["actor_rollout_ref"]["rollout"]["temperature"] = 0.6
                (tmp_path / run / "config.yaml").write_text(yaml.safe_dump(config))
    runs = load_runs(tmp_path)
    hot, filtered = ((PAIR, arm, arms[0]) for arm in arms[1:])
    assert "lower" in study_fits(runs).comparisons[filtered].words and study_fits(runs).comparisons[hot].asymptote
    found = fits_of(runs, tmp_path)
    assert "lower" not in found.comparisons[filtered].words and found.comparisons[filtered].asymptote
    assert "rollout.temperature is 0.6 of" in found.comparisons[hot].words and not found.comparisons[hot].asymptote
    assert any("temperature" in note for note in fit_effects(runs, found, PAIR, 0.02).notes)
    assert not why_unlike(runs, tmp_path, hot, "eval/train/pass@1")

    # what a user asks for is drawn as it was logged, with a note
    asked = forest_effects(runs, tmp_path, 0.02, metric="train/pass@1")
    assert any("temperature is 0.6 of" in note for note in asked.notes)
    assert not any("temperature" in note for note in forest_effects(runs, tmp_path, 0.02).notes)

    # as a user has it: the readers leave out metrics that nothing needs
    assert "ends lower" not in build(tmp_path)
    assert cli.main(["fits"], ["--result", str(tmp_path), "--figure", str(tmp_path / "figure"), "--formats", "png"]) == 0
    assert "ends lower" not in capsys.readouterr().out


def test_the_forest_shows_what_the_comparisons_say(planted):
    runs = load_runs(planted)
    found = forest_effects(runs, planted, 0.02, title="A title")
    (figure,) = found.figures
    texts = [text.get_text() for text in figure.texts]
    assert "Rollouts at batch 32, against base line 32×1" in texts and "Advantage only, against base line 32×1" in texts
    (one,) = compare(runs, [(PAIR, "grpo_0032_64", BASE)], planted)
    difference = one.judged.found.difference
    assert any(line.startswith(f"{PAIR}: GRPO 32×64 is {difference:.3f} above base line") for line in found.lines)
    assert f"{difference:+.3f} {one.verdict}" in texts
    assert any("not drawn: " in note and "grpo_0128_8" in note for note in found.notes)
    _check_places(figure)


def _many(groups, rows, columns):
    effects = [ForestInterval(0.03, 0.01, 0.05, "better"), ForestInterval(-0.4, -0.5, -0.3, "worse")]
    effects += [ForestInterval(0.0, -0.01, 0.01, "equivalent"), ForestInterval(0.1, -np.inf, np.inf, "undecided")]

    def row(g, r):
        return Row(f"GRPO 32×8 with a variant {r}", tuple(effects[(g + r + c) % 4] for c in range(columns)))

    heading = "Factor {} with a title of some length, against GRPO 32×8"
    return [Group(heading.format(g), tuple(row(g, r) for r in range(rows))) for g in range(groups)]


@pytest.mark.parametrize(("groups", "rows", "columns"), [(1, 1, 1), (25, 4, 1), (6, 2, 6), (1, 100, 2)])
def test_any_number_of_factors_stays_readable(groups, rows, columns):
    given = [Column(f"pair / {i}" if columns > 1 else "", "difference", 0.02) for i in range(columns)]
    with our_style():
        pages = draw_forest(_many(groups, rows, columns), given, "A title", ["A note."])
    assert all(page.get_figheight() <= PAGE_HEIGHT for page in pages)
    labels = [text.get_text() for page in pages for text in page.texts if "variant" in text.get_text()]
    assert len(labels) == groups * rows and (len(pages) > 1) == (groups * rows > 60)
    _check_places(pages[-1])


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("width", [0.003, 0.011, 0.026, 0.043, 0.047, 0.06, 0.13, 0.26, 0.55, 0.9])
def test_labels_of_a_narrow_axis_stand_apart(width, columns):
    effects = tuple(ForestInterval(0.0, -width, width, "undecided") for _ in range(columns))
    given = [Column(f"pair / {i}" if columns > 1 else "", "difference", None) for i in range(columns)]
    with our_style():
        (page,) = draw_forest([Group("A factor", (Row("GRPO 32×8 updates4 cliphigher", effects),))], given, "A title", [])
    renderer = page.canvas.get_renderer()
    for ax in page.axes:
        drawn = [label for label in ax.get_xticklabels() if ax.get_xlim()[0] <= label.get_position()[0] <= ax.get_xlim()[1]]
        boxes = [label.get_window_extent(renderer) for label in drawn if label.get_text()]
        assert len(boxes) >= 3 and all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


def test_one_far_effect_does_not_hide_the_others():
    near = [ForestInterval(0.02, 0.0, 0.04, "better")] * 9
    assert limit_of([*near, ForestInterval(-0.5, -0.6, -0.4, "worse")], 0.02) < 0.1
    assert limit_of(near, 0.02) == pytest.approx(0.0432) and limit_of([], 0.02) > 0


def test_what_another_processor_rounds_otherwise_draws_the_same_file(planted, fits):
    """Forests and fits whose numbers differ where least squares and linear algebra do: far behind what can be seen."""

    def pixels(figure):
        return bytes(figure.canvas.print_to_buffer()[0])

    def moved(one, scale):
        parts = {name: getattr(one.fit, name) * scale for name in ("asymptote", "midpoint")} if one.fit else {}
        return replace(one, found=replace(one.found, **parts))

    drawn = []
    for shift, scale in ((0.0, 1.0), (4e-5, 1.0 + 1e-7)):
        one = ForestInterval(0.0312 + shift, 0.0112 + shift, 0.0512 + shift, "better")
        with our_style():
            (forest,) = draw_forest([Group("A factor", (Row("An arm", (one,)),))], [Column("", "difference", 0.02)], "", [])
        elsewhere = replace(fits, fits={key: moved(fit, scale) for key, fit in fits.fits.items()})
        (curves,), _ = draw_fits(load_runs(planted), elsewhere, PAIR)
        drawn.append((pixels(forest), pixels(curves)))
    assert drawn[0] == drawn[1]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Arms of n x B at 64 and 128 responses a step, of which more rollouts are better at the same tokens; and a variant."""
    folder = tmp_path_factory.mktemp("grid")
    for queries, rollouts in ((32, 2), (16, 4), (8, 8), (32, 1), (32, 4)):
        for seed in (0, 1):
            truth = curve(0.45, 0.6 + 0.03 * np.log2(rollouts), 20)
            write_run(folder, f"grpo_{queries:04d}_{rollouts}", seed, truth=truth, steps=range(0, 101, 10), questions=4096)
    write_run(folder, "grpo_0032_16_other", 0, gain=0.4)
    return folder


def test_the_frontier_compares_at_equal_tokens(grid, tmp_path, capsys):
    table = load_runs(grid).table
    assert "grpo_0032_16_other" not in frontier.family(table, PAIR)
    found = frontier.slices(table, PAIR, "eval/test/pass@1")
    largest = next(one for one in found if one.budget == 64 * 16 * 100)
    assert [one.rollouts for one in largest.best_of_each()] == [2, 4, 8]
    assert largest.arms[0].arm == "grpo_0008_8" and largest.arms[0].steps == pytest.approx(100)
    half = {one.arm: one for one in largest.arms}["grpo_0032_4"]  # 128 responses a step: 50 steps for the same tokens
    logged = table[(table["arm"] == "grpo_0032_4") & (table["step"] == 50)]["eval/test/pass@1"].mean()
    assert half.steps == pytest.approx(50) and half.value.estimate == pytest.approx(logged)
    assert cli.main(["frontier"], ["--result", str(grid), "--figure", str(tmp_path), "--formats", "png"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["frontier.png"]
    assert "highest test Pass@1" in capsys.readouterr().out


def test_the_frontiers_labels_do_not_touch(grid):
    figure, _, _ = frontier.draw_frontier(load_runs(grid), [PAIR], "A title")
    _check_places(figure)


def _rising(train, test, split, step):
    return 0.45 + (train if split == "train" else test) * step / 100


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overfitted")
    gains = {BASE: (0.2, 0.2), "grpo_0032_8": (0.35, 0.35), "grpo_0032_16": (0.35, 0.2)}
    for arm, (train, test) in gains.items():
        for seed in range(5):
            truth = partial(_rising, train, test)
            write_run(folder, arm, seed, truth=truth, steps=(0, 50, 100), questions=2048, seed_noise=0.002)
    return folder


def test_a_planted_overfit_is_not_taken_for_generalisation(overfitted):
    found = train_and_test(load_runs(overfitted), overfitted)
    assert found[PAIR, "grpo_0032_8", BASE].words == "learns more"
    assert found[PAIR, "grpo_0032_16", BASE].words == "learns more, generalises worse"
    gap = found[PAIR, "grpo_0032_16", BASE].gap.judged.found
    assert gap.difference == pytest.approx(-0.15, abs=0.02)


@pytest.mark.parametrize(
    ("name", "arguments", "status", "said"),
    [
        ("generalisation", ["--metric", "actor/grad_norm"], 1, "has no meaning here, because it is not scored on both"),
        ("frontier", ["--axis", "tokens"], 2, "--axis has no meaning for plot_frontier.py"),
        ("forest", ["--pairs", "tiny_gsm"], 1, "no two arms can be compared"),
        ("fits", ["--metric", "actor/gradnorm"], 2, "the nearest are actor/grad_norm"),
    ],
)
def test_what_has_no_meaning_is_one_sentence(overfitted, tmp_path, capsys, name, arguments, status, said):
    assert cli.main([name], ["--result", str(overfitted), "--figure", str(tmp_path / "f"), *arguments]) == status
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_metric_of_no_better_direction_is_higher_or_lower(planted, tmp_path, capsys):
    asked = ["--result", str(planted), "--figure", str(tmp_path), "--formats", "png"]
    assert cli.main(["forest"], [*asked, "--metric", "eval/test/flexible", "--axis", "tokens"]) == 0
    assert "base line 32×1 against its start: eval/test/flexible +0." in capsys.readouterr().out  # it alone logs it
    assert cli.main(["forest"], [*asked, "--metric", "train/reward_mean"]) == 0
    assert "GRPO 32×8 against base line 32×1: train/reward_mean +0 (" in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"forest_eval-test-flexible_tokens.png", "forest_train-reward_mean.png"}


def test_one_arm_alone_is_no_fault_where_others_are_drawn(tmp_path, capsys):
    write_study(tmp_path / "result", {BASE: 0.1}, [0], steps=(0, 100))
    assert cli.main(["forest", "frontier", "baseline"], ["--result", str(tmp_path / "result"), "--figure", str(tmp_path)]) == 0
    assert "frontier: no two arms" in capsys.readouterr().out
