"""How to add a model, a data set, an arm, an estimator: every block of docs/extending.md, carried out in a copy of the tree."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from Verl.base_models.tokenizer import build_tokenizer
from Verl.study import shipped
from Verl.trainer import main_eval

_BLOCK = re.compile(r"^```(\w+)\n# (\S+/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section_of(root: Path, kind: str) -> str:
    text = (root / "docs/extending.md").read_text()
    return re.search(rf"^## {kind}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)


class Tree:
    """A copy of the repository, and what a user does to it."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root
        listed = ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, folder / name)

    def add(self, kind: str) -> None:
        """Carries out the blocks of a section of docs/extending.md, then writes the scripts as it says."""
        section = section_of(self.root, kind)
        blocks = _BLOCK.findall(section)
        assert len(blocks) == section.count("\n```\n"), "a block that names no file is not carried out"
        for _, path, content in blocks:
            target = self.folder / path
            if path.endswith("study.yaml"):
                target.write_text(_with_entries(target.read_text(), content))
            else:
                assert not target.exists(), path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content)
        self.run(sys.executable, "Running-Bash/generate_scripts.py")

    def run(self, *command: str) -> subprocess.CompletedProcess:
        more = {"PYTHONPATH": str(self.folder), "BANDIT_VENV": sys.prefix, "HF_HUB_OFFLINE": "1"}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")} | more
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def design(self, *arguments: str) -> str:
        return self.run(sys.executable, "Running-Bash/design.py", *arguments).stdout

    def dry_run(self, script: str) -> tuple[dict, str]:
        """(resolved config, what is said beside it)."""
        done = self.run("bash", f"Running-Bash/{script}", "--dry-run")
        return yaml.safe_load(done.stdout), done.stderr


def _merged(whole, more):
    """Entries are added to mappings, and names to lists."""
    if isinstance(whole, dict) and isinstance(more, dict):
        return whole | {key: _merged(whole[key], value) if key in whole else value for key, value in more.items()}
    return [*whole, *more]


def _with_entries(text: str, block: str) -> str:
    """study.yaml with the entries of a block below those that stand, and the names of a list that is there at its end."""
    before = yaml.safe_load(text)
    for group, entries in re.findall(r"^(\w+):.*\n((?:[ #].*\n)+)", block, re.MULTILINE):
        for name, entry in re.findall(r"^  ([\w.]+)(:.*\n(?:    .*\n)*)", entries, re.MULTILINE):
            section = re.search(rf"^{group}:.*\n(?: .*\n|\n)*", text, re.MULTILINE)
            if name in before[group]:
                ((key, names),) = yaml.safe_load(entry[1:]).items()
                old = re.search(rf"^  {name}:\n(?:    .*\n)*?    {key}: \[[^]]*(?=\])", section.group(), re.MULTILINE)
                at = section.start() + old.end()
                text = f"{text[:at]}, {', '.join(names)}{text[at:]}"
            else:
                at = section.start() + len(section.group().rstrip()) + 1
                text = f"{text[:at]}  {name}{entry}{text[at:]}"
    assert yaml.safe_load(text) == _merged(before, yaml.safe_load(block))
    return text


@pytest.fixture
def tree(tmp_path, root) -> Tree:
    return Tree(tmp_path / "tree", root)


@pytest.mark.slow
@pytest.mark.long
def test_a_model(tree):
    tree.add("A model")
    assert len(list((tree.folder / "Running-Bash").glob("run_*_qwen1.5b_gsm.sh"))) == 22
    config, said = tree.dry_run("run_grpo_0032_8_qwen1.5b_gsm.sh")
    assert config["run"]["name"] == "grpo_0032_8_qwen1.5b_gsm_seed0"
    assert config["actor_rollout_ref"]["model"]["path"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert "memory by plan" in said
    plan = tree.design("plan", "--pair", "qwen1.5b_gsm", "--steps", "100")
    assert "1.54 G parameters" in plan and "(!)" not in plan  # as published, and every arm fits
    # What the comment in its file says.
    path = tree.folder / "Verl/trainer/config/model/qwen1.5b.yaml"
    path.write_text(path.read_text().replace("micro_batch_size_per_gpu: 2", "micro_batch_size_per_gpu: 4"))
    with pytest.raises(AssertionError, match="does not fit by plan: updating"):
        tree.design("plan", "--pair", "qwen1.5b_gsm", "--steps", "100", "--arms", "grpo_0032_8")


@pytest.mark.slow
@pytest.mark.long
def test_a_data_set(tree):
    tree.add("A data set")
    tree.run(sys.executable, "-c", _PREPARED, "longsums")
    config, said = tree.dry_run("run_grpo_0032_8_tiny_longsums.sh")
    assert config["run"]["name"] == "grpo_0032_8_tiny_longsums_seed0"
    assert "data." not in said  # only the model is not there yet
    done = tree.run(sys.executable, "-c", _SCORED, "run_grpo_0032_8_tiny_longsums.sh")
    assert done.stdout.split() == ["1.0", "1.0", "0.0", "0.0"]


# A data set as a run prepares it on first use.
_PREPARED = """
import sys
from Verl.trainer import preparation, settings
sys.exit(preparation.prepare(settings.compose("grpo", [f"data={sys.argv[1]}"])))
"""

# The reward manager with the documented function, on the first training question: rewards of a right and a wrong answer,
# and the strict scores that Pass@1 is made of.
_SCORED = """
import asyncio, math, sys
from types import SimpleNamespace
import pandas as pd, torch
from Verl.cpu import plugin
from Verl.reward.manager import BanditRewardManager
from Verl.study import shipped
from Verl.trainer.ppo.rollouts import _score
sys.path.insert(0, "Dataset/longsums")
from score import compute_score

config = shipped.prepare(sys.argv[1]).config
row = pd.read_parquet(config.data.train_files).iloc[0].to_dict()
for answer in (row["reward_model"]["ground_truth"], "99"):
    tokenizer = SimpleNamespace(decode=lambda *_, **__: f"1+1=2;#{answer}")
    manager = BanditRewardManager(config, tokenizer, compute_score)
    batch = {"responses": torch.ones(1, dtype=torch.long), "attention_mask": torch.ones(1, dtype=torch.long)}
    found = asyncio.run(manager.run_single([SimpleNamespace(batch=batch, non_tensor_batch=row)]))
    assert math.isnan(found["reward_extra_info"]["strict"])
    print(found["reward_score"], _score("strict", found["reward_extra_info"], found["reward_score"]))
"""


@pytest.mark.slow
@pytest.mark.long
def test_an_arm(tree):
    tree.add("An arm")
    config, _ = tree.dry_run("run_grpo_0032_8_warmup_tiny_arith.sh")
    assert config["run"]["name"] == "grpo_0032_8_warmup_tiny_arith_seed0"
    assert config["actor_rollout_ref"]["actor"]["optim"]["lr_warmup_steps"] == 10
    said = tree.design("diff", "grpo_0032_8", "grpo_0032_8_warmup", "--pair", "tiny_arith")
    assert "one factor: warmup (Warm-up)" in said
    # That it trains otherwise: tests/study/test_effect.py.


@pytest.mark.slow
@pytest.mark.long
def test_an_estimator(tree):
    tree.add("An estimator")
    config, _ = tree.dry_run("run_signgrpo_0032_8_tiny_arith.sh")
    assert config["run"]["name"] == "signgrpo_0032_8_tiny_arith_seed0"
    said = tree.design("diff", "grpo_0032_8", "signgrpo_0032_8", "--pair", "tiny_arith")
    assert "one factor: sign (The sign of the advantage)" in said
    done = tree.run(sys.executable, "-c", _TRAINED, "run_signgrpo_0032_8_tiny_arith.sh")
    assert done.stdout.split() == ["1.0", "-1.0", "-1.0"]
    tree.run("git", "init", "-q")  # tests ask git which results are committed
    tree.run("git", "add", ".")
    tree.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *_AFFECTED)
    done = tree.run(sys.executable, "-c", _SHOWN)
    look, label, *others = done.stdout.splitlines()
    assert label == "SignGRPO 32\N{MULTIPLICATION SIGN}8" and look not in others
    tree.run(sys.executable, "Running-Results/plot_sign.py", "--result", "simulated", "--figure", "drawn")
    assert (tree.folder / "drawn/sign.pdf").is_file() and (tree.folder / "drawn/sign.png").is_file()
    tree.run("bash", "Running-Results/report.sh", "--result", "simulated", "--out", "drawn/report.html")
    section = (tree.folder / "drawn/report.html").read_text().split('<section aria-labelledby="sign">')[1]
    assert "Does it matter by how much a response is better" in section and "SignGRPO 32\N{MULTIPLICATION SIGN}8" in section


# The files of the suite that read the registry, the design or what follows from it. Of what draws, the new figure alone (and
# the report, in the test): the others are drawn from the same code in the suite itself.
_AFFECTED = [
    *(f"tests/trainer/test_{name}.py" for name in ("core_algos", "core_algos_sign", "estimators", "seeds_and_names")),
    *(f"tests/study/test_{name}.py" for name in ("design", "scripts", "readme", "effect", "differences", "shipped")),
    "tests/analysis/test_figure_metrics.py::test_every_script_takes_a_metric_and_names_its_files_after_it[plot_sign]",
]

# Simulated runs of the new arm and its partner; the look of the new arm, its label, and the looks of all others.
_SHOWN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/analysis")
from simulated_runs import write_study
from Verl.analysis.style import arm_label, arm_look
from Verl.design.declared import declared

Path("simulated").mkdir()
write_study(Path("simulated"), {"grpo_0032_8": 0.3, "signgrpo_0032_8": 0.1}, [0, 1], steps=(0, 50, 100), full=True)
print(arm_look("signgrpo_0032_8"), arm_label("signgrpo_0032_8"), sep="\\n")
print(*(arm_look(arm) for arm in declared().arms if arm != "signgrpo_0032_8"), sep="\\n")
"""


# What the trainer makes of three responses to one query under the new name.
_TRAINED = """
import sys
from types import SimpleNamespace
import torch
from Verl.cpu import plugin
from Verl.study import shipped
from Verl.trainer.ppo.ray_trainer_grpo import RayTrainerGRPO

trainer = object.__new__(RayTrainerGRPO)
trainer.config = shipped.prepare(sys.argv[1]).config
rewards, mask = torch.tensor([[1.0], [0.0], [0.0]]), torch.ones(3, 1)
advantages, _ = trainer.advantages(rewards, mask, SimpleNamespace(uids=["a"] * 3))
print(*advantages.flatten().tolist())
"""


def test_a_base_model(root, tmp_path, monkeypatch):
    """The template's file is one of the user's folder, in which the commands are typed; a prompt is what it writes."""
    section = section_of(root, "A base model")
    ((template, name),) = re.findall(r"^```jinja\n(\{# (\S+):.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (tmp_path / name).write_text(template)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BANDIT_CWD", str(tmp_path))
    monkeypatch.setattr(main_eval.preparation, "prepare", lambda config: 0)  # fetches nothing here
    (commands,) = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    train, evaluate = (shlex.split(line, comments=True)[1:] for line in commands.splitlines())
    text = shipped.prepare(Path(train[0]).name, train[1:]).config.actor_rollout_ref.model.custom_chat_template
    assert text == main_eval.parse(evaluate[1:]).chat_template == template
    tokenizer = build_tokenizer(64)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1="}], chat_template=text, add_generation_prompt=True, tokenize=False
    )
    assert prompt == "Question: 1+1=\nAnswer:"


# ---- what is not in a block -------------------------------------------------------------------------------------------


def test_a_number_edited_in_a_script_names_the_run(bash_folder):
    path = bash_folder / "run_grpo_0032_8_tiny_arith.sh"
    path.write_text(path.read_text().replace("rollout_n=8", "rollout_n=16"))
    assert shipped.prepare(path.name, folder=bash_folder).name == "grpo_0032_16_tiny_arith_seed0"


def test_a_setting_added_to_a_script_names_the_run(bash_folder):
    path = bash_folder / "run_grpo_0032_8_tiny_arith.sh"
    own = "own_arguments=(actor_rollout_ref.actor.kl_loss_coef=0.01)"
    path.write_text(path.read_text().replace("model=", f"{own}\nmodel="))
    one = shipped.prepare(path.name, ["seed=1"], folder=bash_folder)
    assert one.name == "grpo_0032_8_kl_loss_coef-0.01_tiny_arith_seed1"
    path.write_text(path.read_text().replace("model=", "variant=wide\nmodel=", 1))
    assert shipped.prepare(path.name, folder=bash_folder).name == "grpo_0032_8_wide_tiny_arith_seed0"
    # What is typed comes last.
    typed = shipped.prepare(path.name, ["actor_rollout_ref.actor.kl_loss_coef=0.02"], folder=bash_folder)
    assert typed.config.actor_rollout_ref.actor.kl_loss_coef == 0.02


@pytest.mark.parametrize("estimator", ["gpg", "opo"])
def test_an_estimator_of_verl_s_is_one_entry(bash_folder, root, estimator):
    path = bash_folder / "study.yaml"
    text = path.read_text().replace("    more: [arpo_0032_8,", f"    more: [{estimator}_0032_8, arpo_0032_8,")
    entry = f"  {estimator}_0032_8: {{estimator: {estimator}, queries: 32, rollouts: 8}}\n"
    path.write_text(text.replace("# ---- factors", f"{entry}# ---- factors"))
    command = [sys.executable, str(root / "Running-Bash/generate_scripts.py"), "--folder", str(bash_folder)]
    subprocess.run(command, check=True, capture_output=True)
    one = shipped.prepare(f"run_{estimator}_0032_8_tiny_arith.sh", folder=bash_folder)
    assert one.algorithm == "grpo" and one.config.algorithm.adv_estimator == estimator
    assert one.name == f"{estimator}_0032_8_tiny_arith_seed0"
