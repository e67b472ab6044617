"""Documented commands of a run's script pass the checks that come before a run starts; what this machine lacks is left out.

Nothing is started. Not taken: `run_study.sh`, whose options are no settings, and commands with a placeholder `<...>`.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from Verl.study import shipped
from Verl.trainer import settings

_COMMAND = re.compile(r"\bbash Running-Bash/(run_(?!study)[^\s`]*\.sh[^`\n]*)")
_BLOCK = re.compile(r"^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^(?:#|\{#).*?(?<=[ =])([\w-]+\.(?:py|jinja))\b")  # a file in the reader's folder
_OPTIONAL = ("trackio",)  # requirements-trackers.txt


def commands(page: Path) -> list[list[str]]:
    """The commands of a page without those that have a placeholder: a script's name and what is typed after it."""
    found = _COMMAND.findall(page.read_text().replace("\\\n", " "))
    return [shlex.split(text, comments=True) for text in dict.fromkeys(found) if "<" not in text]


PAGES = {page.name: page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if commands(page)}


def prepared_by_hand(page: Path, typed: list[str], config) -> None:
    """A set that a command names beside the pair's own: the page prepares it, and its prompts have room in this run."""
    folders = {folder for word in typed for folder in re.findall(r"=\[?(Dataset/\w+/data)/", word)}
    for path in (settings.CONFIG_DIR / "data").glob("*.yaml"):
        folder = yaml.safe_load(path.read_text())["run"]["prepare"]["data"]["folder"]
        if folder in folders:
            folders.remove(folder)
            assert f"python {folder.removesuffix('data')}prepare.py" in page.read_text()
            assert config.data.max_prompt_length >= settings.compose("grpo", [f"data={path.stem}"]).data.max_prompt_length
    assert not folders


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_are_accepted(name, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name in _OPTIONAL or find(name, *rest))
    monkeypatch.setenv("BANDIT_CWD", str(tmp_path))
    for block in _BLOCK.findall(PAGES[name].read_text()):
        if named := _NAMED.match(block):
            (tmp_path / named[1]).write_text(block)
    for script, *typed in commands(PAGES[name]):
        prepared_by_hand(PAGES[name], typed, shipped.prepare(script, typed).config)


def test_the_commands_are_found():
    found = [command for page in PAGES.values() for command in commands(page)]
    assert len(found) >= 20 and sum(any("=" in word for word in command) for command in found) >= 15
