"""docs/environment.md has every variable that the code reads or sets, and no variable of ours that nothing reads."""

import ast
import re

import pytest

from Verl import REPO_ROOT

DOC = (REPO_ROOT / "docs/environment.md").read_text()
# Given to a process by torch's and verl's launchers, and by a shell.
INTERNAL = {"RANK", "WORLD_SIZE", "MASTER_PORT", "BASH_VERSION", "PWD", "PATH"}
PREFIXES = ("BANDIT", "RAY", "OMP", "MALLOC", "HF", "VERL", "TORCH", "CUDA", "GLOO", "NCCL", "WANDB", "TENSORBOARD", "MLFLOW",
            "TOKENIZERS", "TRANSFORMERS", "HYDRA", "VLLM")  # fmt: skip


def read_by_python() -> set[str]:
    """Constants given to os.environ, and texts that look like a variable of the packages that we set some for."""
    found = set()
    named = re.compile(rf"({'|'.join(PREFIXES)})_[A-Za-z0-9_]*[A-Za-z0-9]_?")
    for path in [*(REPO_ROOT / "Verl").rglob("*.py"), *(REPO_ROOT / "Dataset").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and named.fullmatch(node.value):
                found.add(node.value)
            target = node.value if isinstance(node, ast.Subscript) else node.func if isinstance(node, ast.Call) else None
            if target is not None and re.search(r"\benviron\b|\bgetenv\b", ast.unparse(target)):
                first = node.slice if isinstance(node, ast.Subscript) else (node.args or [None])[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.isidentifier():
                    found.add(first.value)
    return found - INTERNAL


def read_by_scripts() -> set[str]:
    folders = [REPO_ROOT / "Running-Bash", REPO_ROOT / "Running-Results", REPO_ROOT / "tests"]
    text = "\n".join(path.read_text() for folder in folders for path in folder.glob("*.sh"))
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]+)[:}]", text)) - INTERNAL


@pytest.mark.parametrize("name", sorted(read_by_python() | read_by_scripts()))
def test_a_variable_has_its_place_in_the_docs(name):
    assert f"`{name}`" in DOC, f"docs/environment.md does not have {name}"


def test_every_documented_variable_of_ours_is_read():
    for name in set(re.findall(r"`(BANDIT_[A-Z0-9_]+)`", DOC)):
        stem = name.removesuffix("GSM8K").removesuffix("MATH")
        folders = ("Verl", "Dataset", "Running-Bash", "Running-Results", "tests")
        paths = [path for folder in folders for path in (REPO_ROOT / folder).rglob("*") if path.suffix in (".py", ".sh")]
        assert any(stem in path.read_text() for path in paths), name
