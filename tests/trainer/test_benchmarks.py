"""Benchmarks beside the test set: their settings, what a run stands on, and what is refused."""

import pytest
from omegaconf import OmegaConf

from Verl.data.schema import make_row, write_split_set
from Verl.errors import UserError
from Verl.reward.sources import CHAIN_SUM
from Verl.study import shipped
from Verl.trainer.benchmarks import benchmarks, evaluated_sets, files_of, splits_of
from Verl.trainer.identity import stands_on
from Verl.trainer.typed_paths import resolved

SCRIPT = "run_grpo_0032_8_tiny_arith.sh"


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """A file of sums that the pair's own data does not have."""
    folder = tmp_path_factory.mktemp("hard")
    rows = [
        make_row(
            data_source=CHAIN_SUM, question=f"9+{a}+99=", prompt=f"9+{a}+99=", ability="arithmetic",
            ground_truth=str(108 + a), split="test", index=9000 + a, answer=str(108 + a),
        )
        for a in range(4)
    ]  # fmt: skip
    write_split_set(folder, {"test": rows}, source="hard", settings={})
    return folder / "test.parquet"


@pytest.mark.usefixtures("tiny_pair")
def test_a_benchmark_is_a_set_of_the_run_and_part_of_what_it_stands_on(hard):
    run = shipped.prepare(SCRIPT, [f"data.benchmarks.hard={hard}", f"data.benchmarks={{v1.5:[{hard}]}}"])
    plain = shipped.prepare(SCRIPT, [])
    assert benchmarks(run.config) == ["hard", "v1.5"] and files_of(run.config, "v1.5") == [str(hard)]
    assert files_of(run.config, "hard") == [str(hard)] and files_of(plain.config, "test") == [plain.config.data.test_files]
    assert run.name == plain.name  # what is measured, not the arm
    assert run.hash != plain.hash and "data.benchmarks.hard" in run.flat and "data.benchmarks" not in plain.flat
    assert f"data.benchmarks.hard/{hard}" in stands_on(run.config)
    assert list(splits_of(plain.config)) == ["train", "validation", "test"]


def test_a_run_from_before_there_were_benchmarks_has_the_same_hash():
    config = shipped.prepare(SCRIPT, []).config
    before = OmegaConf.create(OmegaConf.to_container(config))
    del before.data["benchmarks"]
    assert shipped.config_hash(before) == shipped.config_hash(config)


@pytest.mark.usefixtures("tiny_pair")
@pytest.mark.parametrize("settings, said", [
    ("data.benchmarks.test={hard}", "can't be that of a metric"),
    ("data.benchmarks.hard=absent.parquet", "data.benchmarks.hard: absent.parquet"),
    ("data.benchmarks.hard=3", "must be a parquet file, or a list of them"),
    ("data.benchmarks={hard}", "is no group of files: name each"),
    ("data.benchmarks.hard={hard} trainer.test_freq=-1", "trainer.test_freq=-1 evaluates none"),
    ("data.benchmarks.hard={train}", "is the file of data.benchmarks.hard"),
])  # fmt: skip
def test_what_is_no_benchmark_is_refused(hard, settings, said):
    typed = [text.format(hard=hard, train="Dataset/arithmetic/data/train.parquet") for text in settings.split()]
    try:
        missing = shipped.prepare(SCRIPT, typed).missing
    except UserError as error:
        missing = [str(error)]
    assert said in missing[0] and "\n" not in missing[0]


def test_paths_of_benchmarks_are_the_users(hard):
    there = hard.parent.parent
    assert resolved(["data.benchmarks.a=hard0/test.parquet"], there) == [f"data.benchmarks.a={there}/hard0/test.parquet"]
    [group] = resolved(["data.benchmarks={a:hard0/test.parquet,b:[hard0/test.parquet,absent]}"], there)
    assert group == f"data.benchmarks={{a:{there}/hard0/test.parquet,b:[{there}/hard0/test.parquet,absent]}}"


def test_sets_that_were_evaluated_are_found_by_their_metric():
    metrics = ["eval/zeta/pass@1", "eval/test/pass@1", "eval/test/a-source/pass@1", "eval/alpha/pass@1", "eval/zeta/format"]
    assert evaluated_sets(metrics) == ["test", "alpha", "zeta"]
