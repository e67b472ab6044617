"""Shared by the reward tests: the published data (where this machine has them) and one math-verify guard."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from Verl import REPO_ROOT
from Verl.reward.guard import MathVerifyGuard

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder with the published data sets, which are no part of the repository."""
    folder = Path(os.environ.get("BANDIT_SHARED_DATA", REPO_ROOT.parent / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").is_file():
        pytest.skip(f"published data not found in {folder}; set BANDIT_SHARED_DATA to the folder that holds gsm8k/")
    return folder


def _read_jsonl(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def gsm8k(published: Path) -> Rows:
    """All 7,473 + 1,319 questions; "truth" is what stands after the marks, without thousands separators."""
    rows = _read_jsonl(published / "gsm8k" / "train.jsonl") + _read_jsonl(published / "gsm8k" / "test.jsonl")
    assert len(rows) == 7473 + 1319
    return [{**row, "truth": row["answer"].split("#### ")[-1].replace(",", "")} for row in rows]


@pytest.fixture(scope="session")
def math_500(published: Path) -> Rows:
    """All 500 problems of MATH-500: solution (with a box) and answer (its content)."""
    rows = _read_jsonl(published / "MATH-500" / "test.jsonl")
    assert len(rows) == 500
    return rows


@pytest.fixture(scope="session")
def guard() -> Iterator[MathVerifyGuard]:
    """One guard with the default limits for all tests that do not damage it."""
    guard = MathVerifyGuard()
    yield guard
    guard.close()
