"""Benchmarks of a study: a column of the table, a section of the report, a curve; and nothing where there are none."""

import io
import json

import pytest
from rich.console import Console
from simulated_runs import write_run

from Verl.analysis.figures import cli
from Verl.analysis.live import cli as live
from Verl.analysis.report.build import build
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.summary import summary_table, to_markdown


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms of two seeds; one of them has a benchmark."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for arm, benchmark in (("grpo_0032_1", None), ("grpo_0032_8", 0.25)):
        for seed in (0, 1):
            path = folder / f"{write_run(folder, arm, seed, steps=(0, 50, 100), questions=64)}.jsonl"
            if benchmark is not None:
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                for row in rows:
                    row |= {"eval/hard/pass@1": benchmark + seed / 2 + row["step"] / 1000, "eval/hard/questions": 4.0}
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_benchmark_is_a_column_of_the_table_and_of_the_report(study):
    runs = load_runs(study, cli.needed)
    table = summary_table(runs).set_index("arm")
    assert table.loc["grpo_0032_8", "benchmark_hard"] == pytest.approx((0.35 + 0.85) / 2)
    assert table.loc["grpo_0032_8", "benchmark_hard_low"] < 0.6 < table.loc["grpo_0032_8", "benchmark_hard_high"]
    assert table["benchmark_hard"].isna()["grpo_0032_1"]
    head, _, *rows = to_markdown(summary_table(runs)).splitlines()
    assert head.endswith("| hard |") and rows[1].rstrip(" |").rsplit("|", 1)[1].strip().startswith("0.600 [")
    page = build(study)
    assert "<h3>Benchmarks</h3>" in page and "0.600" in page


def test_it_is_drawn_as_any_metric_and_live(study, tmp_path, capsys):
    assert cli.main(["rollouts"], ["--result", str(study), "--figure", str(tmp_path), "--metric", "eval/hard/pass@1"]) == 0
    assert "eval/hard/pass@1" in capsys.readouterr().out and list(tmp_path.glob("rollouts_eval-hard-pass@1*.png"))
    sink = io.StringIO()
    live.main(["--result", str(study), "--once", "grpo_0032_8_tiny_arith_seed0"], Console(file=sink, width=100, height=40))
    assert "hard 0.350" in sink.getvalue()


def test_without_one_nothing_is_added(tmp_path):
    write_run(tmp_path, "grpo_0032_1", 0, steps=(0, 50, 100), questions=64)
    runs = load_runs(tmp_path, cli.needed)
    assert not [name for name in summary_table(runs).columns if "benchmark" in name]
