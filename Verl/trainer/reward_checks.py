"""The check of a user's reward function before Ray starts: verl loads it in a worker, a minute later.

The file is read, not run: what it imports may be at home in the workers only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from omegaconf import DictConfig

from Verl.errors import UserError

PATH, NAME = "reward.custom_reward_function.path", "reward.custom_reward_function.name"


def check_custom_function(path: str, name: str) -> None:
    """Raises UserError unless the Python file at `path` is one, and has something called `name` at its top."""
    if path.startswith("pkg://"):
        return
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{PATH}={path} does not exist: give a Python file")
    try:
        names = set(_names(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{PATH}={path} is not Python ({getattr(error, 'msg', error)}{line}): correct the file") from None
    except OSError as error:
        raise UserError(f"{PATH}={path} can't be read ({error.strerror}): give a file that can") from None
    if name not in names and "*" not in names:
        near = get_close_matches(name, names, n=1)
        there = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(sorted(names))}" if names else ""
        raise UserError(f"{NAME}={name} is not in {path}: give the name of a function there{there}")


def check_time_limit(config: DictConfig) -> None:
    """Refuse a time limit that nothing would read: our own rules have theirs (Verl/reward/guard.py)."""
    seconds = config.reward.timeout_seconds
    if seconds is not None and not config.reward.custom_reward_function.path:
        raise UserError(
            f"reward.timeout_seconds={seconds} changes nothing: it limits reward.custom_reward_function, and none is set; "
            "leave it out"
        )


def _names(tree: ast.AST) -> Iterator[str]:
    """What the statements outside functions and classes define or import; "*" for an import of everything."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        else:
            yield from _names(node)
