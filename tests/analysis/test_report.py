"""The report: one page that names what was found, what it cost and what is missing, the same from the same runs."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from simulated_runs import write_run, write_study

from Verl.analysis.figures import run_figure
from Verl.analysis.report.build import build, main
from Verl.analysis.report.run_tables import costs, health, provenance, speeds
from Verl.analysis.report.taken import steps_taken
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.compare import compare
from Verl.analysis.verdicts.text import conclusion, headline, number
from Verl.design.declared import declared

ROOT = Path(__file__).resolve().parents[2]
GAINS = {"grpo_0032_1": 0.1, "onerpo_0032_1_7": 0.1, "grpo_0032_8": 0.35, "grpo_0032_8_control_random": 0.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "result"
    folder.mkdir()
    write_study(folder, GAINS, range(4), questions=256, steps=(0, 50, 100), full=True)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return build(study)


@pytest.fixture(scope="module")
def read(page):
    return _Text(page)


class _Text(HTMLParser):
    """The page's tags, and its text by section (the id of the heading that names it)."""

    def __init__(self, page):
        super().__init__()
        self.tags, self._parts, self._open = [], {}, None
        self.feed(page)
        self.sections = {name: " ".join(" ".join(parts).split()) for name, parts in self._parts.items()}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self._open = dict(attributes)["aria-labelledby"]

    def handle_data(self, data):
        if self._open:
            self._parts.setdefault(self._open, []).append(data)


def test_the_page_says_what_was_found_with_its_numbers(read, study):
    sections = read.sections
    (expected,) = compare(load_runs(study), [("tiny_arith", "grpo_0032_8", "grpo_0032_1")], study)
    row = sections["rollouts"]
    assert f"{expected.judged.found.difference:+.3f}" in row and f"{expected.adjusted_p:.3f}" in row
    assert "4 paired seeds x 256 questions" in row and "): better." in row
    assert "grpo_0032_16" in row and "Not run on tiny_arith" in row
    assert "undecided" in sections["advantage"] and "would be found in 4 of 5 such studies" in sections["advantage"]
    assert "control random 32×8 is" in sections["controls"] and "its start" in sections["controls"]
    assert f"{expected.judged.found.difference:+.3f}" in sections["short"]
    # how the comparisons ended: the base line's family, GRPO 32x8's, the starts'
    for part in ("base line 32×1 3 1 1 0 1 0", "its start 4 2 0 0 2 0", "GRPO 32×8 1 0 1 0 0 0"):
        assert part in sections["short"], part


def test_every_section_of_the_issue_is_there(read):
    sections, tags = read.sections, [tag for tag, _ in read.tags]
    assert {"short", "design", "table", "speed", "ledger", "health", "samples", "problems", "made"} <= set(sections)
    assert tags.count("svg") >= 7 and tags.count("h1") == 1
    assert "actor_rollout_ref.rollout.n" in sections["rollouts"] and "rollout.n 1 8" in sections["rollouts"]
    assert "410 k" in sections["ledger"]
    assert "None of the 16 runs is flagged" in sections["health"] and "2.4e−07" in sections["health"]
    assert "Learnt." in sections["samples"] and "7+5=12;#12" in sections["samples"]
    for part in ("abc1234", "torch 2.13.0", "a processor", "run_grpo_0032_8_tiny_arith.sh seed=K", "0, 1, 2, 3"):
        assert part in sections["made"], part
    # Of the arms of the paper's grid and of factors that somebody asked; not of factors that nobody ran an arm of.
    found = re.search(r"(\d+) of (\d+) declared arms were not run", sections["problems"])
    absent, asked = map(int, found.groups())
    assert absent == asked - len(GAINS) and len(GAINS) < asked < len(declared().pairs["tiny_arith"].arms)
    assert "1 findings" in sections["problems"]


def test_the_page_needs_nothing_else_and_can_be_read_by_ear(page, read):
    tags = read.tags
    names = [name for name, _ in tags]
    assert not {"script", "link", "iframe", "object", "img"} & set(names)
    assert not re.findall(r'(?:src|href)="(?!#)', page) and "@import" not in page
    assert "default-src 'none'" in page
    assert all(attributes.get("aria-label") for name, attributes in tags if name == "svg")
    assert all(attributes.get("scope") for name, attributes in tags if name == "th")
    assert names.count("table") == sum(attributes.get("class") == "scroll" for _, attributes in tags)
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(targets) <= set(ids)


def test_the_same_runs_give_the_same_bytes_in_any_process(study, tmp_path):
    pages, out = [], tmp_path / "page.html"
    for environment in ({"PYTHONHASHSEED": "7", "TZ": "UTC-7"}, {"PYTHONHASHSEED": "8", "OMP_NUM_THREADS": "2"}):
        done = subprocess.run(
            ["bash", str(ROOT / "Running-Results" / "report.sh"), "--result", str(study), "--out", str(out)],
            capture_output=True, text=True, cwd=tmp_path, env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        pages.append(out.read_text())
    assert pages[0] == pages[1] and str(tmp_path) not in pages[0] and str(study) not in pages[0]


def test_the_small_committed_logs_are_enough(study, tmp_path):
    for path in study.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
        (tmp_path / path.stem).mkdir()
        shutil.copy(study / path.stem / "run.json", tmp_path / path.stem)
    sections = _Text(build(tmp_path)).sections
    assert "4 paired seeds, their averages only" in sections["rollouts"] and "): better." in sections["rollouts"]
    assert "No config.yaml is stored" in sections["design"]
    assert "its evaluations are not stored" in sections["samples"]


def test_what_is_missing_or_wrong_is_named(tmp_path, study):
    result = tmp_path / "result"
    shutil.copytree(study, result)
    name = "grpo_0032_8_tiny_arith_seed0"
    lines = (result / f"{name}.jsonl").read_text().splitlines()
    broken = json.loads(lines[1]) | {"actor/grad_norm": "nan", "reward/failures": 3.0}
    (result / f"{name}.jsonl").write_text("\n".join([lines[0], json.dumps(broken), lines[2][:40]]))
    (result / "grpo_0032_1_tiny_arith_seed3.jsonl").unlink()
    write_run(result, "onerpo_0032_1_7", 1, full=True, config_hash="another")
    config = result / "onerpo_0032_1_7_tiny_arith_seed1" / "config.yaml"
    config.write_text(config.read_text().replace("n: 1", "n: 2"))
    shutil.copy(result / "onerpo_0032_1_7_tiny_arith_seed2.jsonl", result / "twice.jsonl")
    (result / "twice").mkdir()
    shutil.copy(result / "onerpo_0032_1_7_tiny_arith_seed2" / "run.json", result / "twice")
    sections = _Text(build(result)).sections
    for part in ("line 3 skipped: the last line is cut off", "actor/grad_norm is NaN", "seed 3 missing", "2 runs of seed 2",
                 "2 configurations under one name", "actor_rollout_ref.rollout.n (1 and 2)"):  # fmt: skip
        assert part in sections["problems"], part
    # 3 of the 50 x 256 responses drawn up to the last step that can be read
    assert f"{name} : 3 answers could not be scored (0.02% of the training responses); 1 values NaN" in sections["health"]
    assert "different configurations" in sections["advantage"]


def test_hostile_texts_stay_texts(tmp_path):
    write_study(tmp_path, {"grpo_0032_1": 0.1}, [0, 1], steps=(0, 100), questions=8, full=True)
    for path in tmp_path.glob("*/run.json"):
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"command": '<script>alert("x")</script>', "commit": "<b>"})
        )
    page = build(tmp_path)
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>" not in page


def test_hostile_names_of_files_stay_names(tmp_path, monkeypatch):
    """A result folder from somebody else: names that a page or a shell would carry out, on the page and in a figure."""
    monkeypatch.chdir(tmp_path)
    arm = "grpo_0032_8_x<img src=x onerror=alert(1)>$(touch ran)`touch ran`;touch ran&"
    write_study(tmp_path / "result", {"grpo_0032_1": 0.1, arm: 0.2}, [0, 1], steps=(0, 100), questions=8, full=True)
    page = build(tmp_path / "result")
    assert "<img src=x" not in page and "&lt;img src=x" in page
    command = ["--result", str(tmp_path / "result"), "--figure", str(tmp_path / "figure")]
    assert run_figure.main([f"{arm}_tiny_arith_seed0", *command]) == 0
    assert not list(tmp_path.rglob("ran")) and len(list((tmp_path / "figure").glob("*onerror*.png"))) == 1


def test_bad_input_ends_in_a_sentence(tmp_path, capsys, study):
    assert main(["--result", str(tmp_path / "none")]) == 2
    assert "no run found in" in capsys.readouterr().err
    assert main(["--result", str(study), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --out") and len(error.splitlines()) == 1


def test_ledger_is_the_mean_over_seeds_of_the_last_step(study):
    base, _, grpo, _ = costs(load_runs(study).table, "tiny_arith")
    assert (base.arm, grpo.arm, base.seeds, base.steps) == ("grpo_0032_1", "grpo_0032_8", 4, 100)
    assert base.spent["queries"] == 3200 and grpo.spent["tokens generated"] == 100 * 256 * 16
    assert base.tokens == 1.0 and grpo.tokens == 8.0


def test_learning_speed_by_hand(tmp_path):
    curves = {"grpo_0032_1": (0.2, 0.4, 0.6), "grpo_0032_8": (0.2, 0.6, 0.6), "arpo_0032_8": (0.2, 0.2, 0.2)}
    for arm, values in curves.items():
        for seed in (0, 1):
            name = write_run(tmp_path, arm, seed)
            rows = [{"step": 10 * i, "eval/test/pass@1": v + 0.01 * seed} for i, v in enumerate(values)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    short = write_run(tmp_path, "grpo_0032_8", 2)
    (tmp_path / f"{short}.jsonl").write_text(
        '{"step": 0, "eval/test/pass@1": 0.2}\n{"step": 10, "eval/test/pass@1": 1.0}'
    )
    found = speeds(load_runs(tmp_path).table, "tiny_arith")
    assert "threshold 0.405" in found.notes[0] and "grpo_0032_8 seed 2" in found.notes[1]
    rows = {row.arm: row for row in found.rows}
    assert rows["grpo_0032_1"].height.estimate == pytest.approx(0.405)
    assert rows["grpo_0032_8"].difference.difference == pytest.approx(0.1) and rows["grpo_0032_8"].seeds == 2
    assert rows["grpo_0032_8"].steps == pytest.approx(5.125)  # the later of two: from 0.2 to 0.6 in 10 steps
    assert rows["arpo_0032_8"].steps == float("inf") and rows["arpo_0032_8"].reached == 0


def test_health_flags_what_a_user_must_see(tmp_path):
    name = write_run(tmp_path, "grpo_0032_1", 0, full=True, status="failed", reason="a reason")
    path = tmp_path / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1] |= {"actor/ppo_kl": 0.5, "training/rollout_probs_diff_mean": 0.9, "actor/grad_norm": 7.0}
    path.write_text("\n".join(map(json.dumps, rows)))
    runs = load_runs(tmp_path)
    (one,) = health(runs, tmp_path)
    assert one.flags == ("failed", "log-prob gap above 0.02", "first-step ppo_kl is not 0") and one.grad_max == 7.0
    config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
    for mini_batch, flagged in ((32, True), (8, False)):  # with several updates a round, the first step's mean is not 0
        config["actor_rollout_ref"]["actor"] |= {"ppo_mini_batch_size": mini_batch, "ppo_epochs": 1}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
        (one,) = health(runs, tmp_path)
        assert ("first-step ppo_kl is not 0" in one.flags) == flagged
    assert any("is failed" in problem and "a reason" in problem for problem in runs.problems)


def test_provenance_counts_what_differs(tmp_path):
    names = [write_run(tmp_path, "grpo_0032_1", seed, full=True, versions={"torch": f"2.{seed}"}) for seed in (0, 1)]
    found = provenance(tmp_path, [*names, "absent"])
    assert found.recorded == 2 and found.commits == [("abc1234", 2)]
    run_json = tmp_path / names[1] / "run.json"
    run_json.write_text(json.dumps(json.loads(run_json.read_text()) | {"versions": {"torch": "2.14"}}))
    assert "2.14 (1 runs)" in dict(provenance(tmp_path, names).versions)["torch"]


def test_conclusion_of_several_arms_in_one_sentence(study):
    family = [("tiny_arith", arm, "grpo_0032_1") for arm in ("grpo_0032_8", "onerpo_0032_1_7", "grpo_0032_64")]
    found = compare(load_runs(study), family, study)
    text = conclusion(found)
    assert text.startswith("tiny_arith, against base line 32×1: GRPO 32×8 +0.") and "p over 2 comparisons" in text
    assert "cannot be compared: GRPO 32×64, not run." in text
    assert headline(found).startswith("Against base line 32×1: GRPO 32×8 +0.") and "1 cannot be compared" in headline(found)
    assert conclusion(found[1:2]).startswith(found[1].sentence) and conclusion([]) == ""
    assert headline(found[2:]) == "Nothing can be compared yet."


def test_the_number_and_its_interval_stand_before_what_is_not_shown(study):
    """Nothing reads as "no effect" where an effect is merely not shown."""
    family = [("tiny_arith", arm, "grpo_0032_1") for arm in ("grpo_0032_8", "onerpo_0032_1_7")]
    shown, weak = compare(load_runs(study), family, study)
    assert shown.verdict == "better" and weak.verdict == "undecided"
    judged = weak.judged.found
    wide = f"{number(judged.low)} to {number(judged.high)}"
    for text in (weak.sentence, conclusion([weak]), conclusion([shown, weak]), headline([weak]), headline([shown, weak])):
        assert wide in text and f"{abs(judged.difference):.3f}" in text
        assert text.index(f"{abs(judged.difference):.3f}") < text.index(wide) < text.index("undecided")
        assert not re.search(r"\b(none|no effect|no difference|does not differ|do not differ)\b", text, re.IGNORECASE), text
    sections = _Text(build(study)).sections
    assert not re.search(r"no (effect|difference)", " ".join(sections.values()))


def test_what_a_comparison_could_have_found(tmp_path):
    truth = {"grpo_0032_1": 0.1, "grpo_0032_8": 0.1}
    write_study(tmp_path, truth, range(5), steps=(0, 100), questions=256, parquet=True)
    (found,) = compare(load_runs(tmp_path), [("tiny_arith", "grpo_0032_8", "grpo_0032_1")], tmp_path)
    size = found.detectable()
    width = found.judged.found.high - found.judged.found.low
    assert found.verdict == "undecided" and f"about {size:.2f} would be found" in conclusion([found])
    assert width / 2 < size < width
    blind = dataclasses.replace(found.judged.found, low=-3.0, high=3.0)
    noisy = dataclasses.replace(found, judged=dataclasses.replace(found.judged, found=blind))
    assert "not even a difference of 1" in conclusion([noisy])


def test_the_step_that_validation_chose_is_named_with_its_test_score(tmp_path):
    best = {"step": 50, "eval/validation/pass@1": 0.6}
    run = write_run(tmp_path, "grpo_0032_1", 0, steps=(0, 50, 100), best=best, ended_by="budget.patience=1 is used up")
    write_run(tmp_path, "grpo_0032_1", 1, steps=(0, 50, 100))
    table = load_runs(tmp_path).table
    [taken] = steps_taken(tmp_path, table)
    assert (taken.run, taken.step, taken.last_step, taken.validation) == (run, 50, 100, 0.6)
    assert taken.test == table.set_index(["run", "step"]).loc[(run, 50), "eval/test/pass@1"]
    text = _Text(build(tmp_path)).sections["taken"]
    assert run in text and "budget.patience=1 is used up" in text and "0.600" in text
