"""Shared by the data tests: the published files (where this machine has them) and small made-up ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from Verl.data.prepare import DataSet, main
from Verl.data.schema import check_parquet, require_prepared
from Verl.reward import sources

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published data sets, which are no part of the repository."""
    folder = Path(os.environ.get("BANDIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").is_file():
        pytest.skip(f"published data not found in {folder}; set BANDIT_SHARED_DATA to the folder that holds gsm8k/")
    return folder


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `Dataset/<name>/prepare.py` as a user does; `env` adds to the environment."""

    def run(name: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "Dataset" / name / "prepare.py"), *map(str, arguments)]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **(env or {})},
            cwd=ROOT.parent,
        )

    return run


@pytest.fixture
def write_jsonl() -> Callable[[Path, list[dict[str, Any]]], Path]:
    def write(path: Path, rows: list[dict[str, Any]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def gsm8k_folder(tmp_path: Path, write_jsonl: Callable[[Path, list[dict[str, Any]]], Path]) -> Path:
    """Twenty train and five test questions in the published layout."""
    for split, count in (("train", 20), ("test", 5)):
        rows = [{"question": f"{split}: {i} and {i}?", "answer": f"Add.\n#### {2 * i}"} for i in range(count)]
        write_jsonl(tmp_path / "gsm8k" / f"{split}.jsonl", rows)
    return tmp_path / "gsm8k"


@pytest.fixture
def prepare() -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """Run a prepare script in this process, expect success, check what was written, return {split: rows}."""

    def run(data_set: DataSet, out: Path, *arguments: object) -> dict[str, list[dict[str, Any]]]:
        assert main(data_set, out, [str(one) for one in arguments]) == 0
        files = {name: out / entry["file"] for name, entry in require_prepared(out)["splits"].items()}
        for path in files.values():
            check_parquet(path, known_data_sources=sources.KNOWN_DATA_SOURCES)
        return {name: pq.read_table(path).to_pylist() for name, path in files.items()}

    return run


def problem(text: str, answer: str = "1") -> dict:
    return {"problem": text, "level": "Level 2", "solution": f"So $\\boxed{{{answer}}}$.", "type": "Algebra"}


@pytest.fixture
def math_folder(tmp_path) -> Path:
    """Laid out as downloads of MATH-lighteval (parquet) and of MATH-500 (jsonl) side by side."""
    train = [problem(f"Train ${i}$.", str(i)) for i in range(8)] + [problem("In full only."), problem("No answer.", "")]
    folder = tmp_path / "MATH-lighteval"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(train), folder / "data" / "train-00000-of-00001.parquet")
    full = [problem("In both."), problem("In full only.")]
    pq.write_table(pa.Table.from_pylist(full), folder / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "MATH-500").mkdir()
    entry = {
        "problem": "In both.", "solution": "$\\boxed{1}$", "answer": "1", "subject": "Algebra", "level": 2,
        "unique_id": "test/algebra/1.json",
    }  # fmt: skip
    (tmp_path / "MATH-500" / "test.jsonl").write_text(json.dumps(entry) + "\n")
    return folder
