"""docs/way-of-a-reward.md names functions that are there, in the files that it names."""

import ast
import re

from Verl import REPO_ROOT

TEXT = (REPO_ROOT / "docs" / "way-of-a-reward.md").read_text()


def defined(path: str) -> set[str]:
    tree = ast.parse((REPO_ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_hop_is_a_function_of_the_file_it_names():
    rows = [line.split("|")[2:4] for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)]
    assert f"\n{len(rows)} hops" in TEXT
    files = set()
    for file, functions in rows:
        paths = re.findall(r"`(Verl/\S+\.py)`", file + functions)
        ours = re.findall(r"(?<!verl's )`(\w+)`", functions)
        assert ours and set(ours) <= set().union(*map(defined, paths)), (paths, ours)
        files.update(paths)
    assert f"; {len(files)} files of ours" in TEXT
