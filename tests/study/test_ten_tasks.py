"""The ten tasks of docs/extending.md: their blocks carried out in a copy of the tree, their commands run there.

An arm and a data set are in test_extending.py; whole exports in tests/runs/test_export.py.
"""

import json
import re
import sys

import pytest

from tests.study.test_extending import Tree
from Verl.base_models.tokenizer import build_tokenizer
from Verl.study import shipped

pytestmark = [pytest.mark.slow, pytest.mark.long]

_DIFF = re.compile(r"^```diff\n# (\S+)\n((?:[-+].*\n)+)```$", re.MULTILINE)
_COMMANDS = re.compile(r"^```bash\n((?:(?:bash|python) .*\n)+)```$", re.MULTILINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory, root) -> Tree:
    return Tree(tmp_path_factory.mktemp("ten") / "tree", root)


def section(tree: Tree, number: int) -> str:
    text = (tree.root / "docs/extending.md").read_text()
    return re.search(rf"^## {number}\. .*\n((?:(?!## ).*\n)*)", text, re.MULTILINE).group(1)


def edit(tree: Tree, number: int) -> None:
    """Carry out the one diff of a section."""
    ((path, lines),) = _DIFF.findall(section(tree, number))
    old, new = ("\n".join(line[1:] for line in lines.splitlines() if line[0] == sign) for sign in "-+")
    text = (tree.folder / path).read_text()
    assert text.count(old) == 1
    (tree.folder / path).write_text(text.replace(old, new))


def commands(tree: Tree, number: int) -> list[list[str]]:
    blocks = _COMMANDS.findall(section(tree, number))
    lines = [line.split(" #")[0].split() for block in blocks for line in block.splitlines()]
    return [[sys.executable if word == "python" else word for word in line] for line in lines]


def test_each_answer_has_ten_lines_at_most(tree):
    for number in range(1, 9):
        lines = [line for line in section(tree, number).splitlines() if line and not line.startswith("```")]
        assert 0 < len(lines) <= 10, number


def test_another_kl_coefficient_for_all_arms(tree):
    edit(tree, 1)
    for script in ("run_grpo_0032_1_tiny_arith.sh", "run_asyttgrpo_0256_1_8_llama1b_gsm.sh"):
        config, _ = tree.dry_run(script)
        assert config["actor_rollout_ref"]["actor"]["kl_loss_coef"] == 0.01
    where = ["--where", "actor_rollout_ref.actor.kl_loss_coef"]
    assert "base.yaml" in tree.run("bash", "Running-Bash/run_grpo_0032_1_tiny_arith.sh", *where).stdout


def test_a_metric_in_the_jsonl(tree):
    edit(tree, 2)
    code = """
from Verl.trainer.ppo import ledger
from tests.trainer.test_ledger_and_controls import rollouts
print(ledger.rollout_metrics(rollouts([1.0, 0.0], ["a", "b"], [3, 5]))["train/response_length_min"])
"""
    assert float(tree.run(sys.executable, "-c", code).stdout) == 3


def test_another_gsm8k_prompt(tree, tmp_path):
    """Data of the old prompt are not trained on: the run is refused, with the command that prepares them anew."""
    published = tmp_path / "published"
    published.mkdir()
    for name, first, count in (("train", 0, 600), ("test", 600, 8)):
        row = '{{"question": "What is {0} + 1?", "answer": "One more.\\n#### {1}"}}\n'
        (published / f"{name}.jsonl").write_text("".join(row.format(i, i + 1) for i in range(first, first + count)))
    prepare = [sys.executable, "Dataset/gsm8k/prepare.py", "--out", "Dataset/gsm8k/data", "--source", str(published)]
    tree.run(*prepare)
    script = "run_grpo_0032_8_qwen0.5b_gsm.sh"
    assert "Dataset/gsm8k/prepare.py" not in tree.dry_run(script)[1]
    edit(tree, 3)
    assert "Dataset/gsm8k/prepare.py" in tree.dry_run(script)[1]
    tree.run(*prepare)
    assert "Dataset/gsm8k/prepare.py" not in tree.dry_run(script)[1]
    code = "import pandas as pd; print(pd.read_parquet('Dataset/gsm8k/data/train.parquet').prompt[0][0]['content'])"
    assert tree.run(sys.executable, "-c", code).stdout.strip().endswith('Write the final answer after "####".')


def test_one_run_on_four_gpus(tree):
    ((_, path, setting),) = commands(tree, 4)
    script = path.split("/")[-1]
    one, four = shipped.prepare(script), shipped.prepare(script, [setting])
    assert four.name == one.name and four.hash == one.hash
    assert four.config.trainer.n_gpus_per_node == 4


def test_a_model_to_share(tree):
    (command,) = commands(tree, 5)
    with pytest.raises(AssertionError, match="grpo_0032_8_tiny_arith_seed0"):  # the copy has no such run
        tree.run(*command)


def test_another_temperature_in_evaluations(tree):
    train, evaluate = commands(tree, 6)
    prepared = shipped.prepare(train[1].split("/")[-1], train[2:])
    assert prepared.config.actor_rollout_ref.rollout.val_kwargs.temperature == 0.6
    assert "temperature-0.6" in prepared.name
    said = tree.run(*evaluate[:2], "--help").stdout
    assert all(word in said for word in evaluate if word.startswith("--"))


def test_a_figure_of_another_metric(tree):
    plot, everything = commands(tree, 7)
    study = str(tree.root / "Running-Results/studies/tiny_arith/result")
    tree.run(*plot, "--result", study, "--figure", str(tree.folder / "figures"))
    names = {path.stem for path in (tree.folder / "figures").iterdir()}
    assert any("response_length" in name for name in names) and any("kl_loss" in name for name in names)
    assert "--metric" in everything


def test_a_model_folder_of_ones_own(tree):
    train, _ = commands(tree, 8)
    own = tree.folder / "mine"
    build_tokenizer(64).save_pretrained(own)
    (own / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 64}))
    (own / "model.safetensors").write_bytes(b"weights")
    prepared = shipped.prepare(train[1].split("/")[-1], [train[2].replace("FOLDER", str(own))])
    assert prepared.config.actor_rollout_ref.model.path == str(own) and "path-mine" in prepared.name
