"""Looks at a machine in some seconds: what a run needs, what is there, and what to do.

    python -m Verl.doctor                           what any run needs
    python -m Verl.doctor --pair qwen0.5b_gsm       and the memory that the plan gives to a pair's base line

A line per look: `ok`, `note` (a run starts all the same) or `STOP` (it could not start), with what to do. Exit status 1 if one
says STOP. Nothing is started and nothing changed; the network is tried once, for three seconds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from Verl import REPO_ROOT, RESULT_DIR, cores
from Verl.errors import UserError
from Verl.files import is_locked

try:
    import psutil
    from packaging.requirements import InvalidRequirement, Requirement

    from Verl.trainer import own_ray, settings
    from Verl.trainer.memory_here import gpu_gib, memory_by_plan
except ImportError as error:  # before the set-up, or with another Python than the environment's
    if __name__ != "__main__":
        raise
    sys.exit(
        f"error: {sys.executable} has not what a run needs ({error}): run `bash Running-Bash/setup.sh`, then "
        "`.venv/bin/python -m Verl.doctor`"
    )

OK, NOTE, STOP = "ok", "note", "STOP"
_OBJECT_STORE = 1e9  # bytes of shared memory that a CPU run's Ray asks for (Verl/cpu/device.py)
_GB = 1e9
# Peak memory of a run's whole process tree on a CPU, measured (docs/speed.md): base line, 8 rollouts.
_CPU_GB = {"tiny": 3.0, "smollm135m": 13.0}
_MUST = ("verl", "ray", "torch", "transformers", "TransferQueue", "tensordict", "hydra-core", "datasets", "numpy", "pandas")


@dataclass(frozen=True)
class Finding:
    """What one look found; `remedy` says what to do about it."""

    level: str
    about: str
    text: str
    remedy: str = ""


def python() -> Iterator[Finding]:
    here = sys.version_info[:2]
    fits = (3, 10) <= here <= (3, 12)
    yield Finding(OK if fits else STOP, "Python", platform.python_version(),
                  "" if fits else "install Python 3.10 to 3.12 and run `PYTHON=<it> bash Running-Bash/setup.sh`")  # fmt: skip


def pins(files: Sequence[str]) -> Iterator[Requirement]:
    """The requirements of these files that count on this Python."""
    for name in files:
        for line in (REPO_ROOT / name).read_text().splitlines():
            with suppress(InvalidRequirement):
                one = Requirement(line.split(" #")[0].split("#")[0].strip())
                if one.marker is None or one.marker.evaluate():
                    yield one


def packages() -> Iterator[Finding]:
    gpu = "requirements-gpu.txt" if settings.gpu_present() else "requirements.txt"
    wrong, missing = [], []
    for one in pins(["requirements-common.txt", gpu]):
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(one.name)
            continue
        if not one.specifier.contains(version.split("+")[0], prereleases=True):
            wrong.append(f"{one.name} {version} (pinned {one.specifier})")
    remedy = "run `bash Running-Bash/setup.sh`"
    if missing:
        yield Finding(STOP if set(missing) & {*_MUST, "vllm"} else NOTE, "packages", f"missing: {', '.join(missing)}", remedy)
    if wrong:
        verls = any(text.startswith("verl ") for text in wrong)
        yield Finding(STOP if verls else NOTE, "packages", f"not as pinned: {', '.join(wrong)}", remedy)
    if not missing and not wrong:
        yield Finding(OK, "packages", f"as pinned in {gpu}")
    for name in ("torch", "numpy"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and not Path(spec.origin).is_relative_to(sys.prefix):
            parts = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
            if any(Path(spec.origin).is_relative_to(part) for part in parts):
                yield Finding(STOP, "packages", f"PYTHONPATH puts {spec.origin} before the environment's {name}",
                              "unset PYTHONPATH; the scripts in Running-Bash put it behind the environment")  # fmt: skip


def gpu() -> Iterator[Finding]:
    files = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not files:
        yield Finding(OK, "GPU", "none: runs compute on the CPU (tiny_arith; smollm135m_gsm in hours)")
        return
    if not settings.gpu_present():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield Finding(NOTE, "GPU", f"{len(files)}, hidden by CUDA_VISIBLE_DEVICES={hidden}", "unset it to use them")
        return
    size, version = gpu_gib(), Path("/proc/driver/nvidia/version")
    driver = re.search(r"\b\d+\.\d+(\.\d+)?\b", version.read_text()) if version.is_file() else None
    if size is None:
        yield Finding(STOP, "GPU", "there, but nvidia-smi does not answer", "install NVIDIA's driver; reboot after an update")
        return
    known = driver[0] if driver else "unknown"
    old = driver is not None and int(known.split(".")[0]) < 570  # CUDA 12.8 and later, which the pinned torch is built for
    yield Finding(NOTE if old else OK, "GPU", f"{len(files)} with at least {size:.0f} GiB, driver {known}",
                  "the pinned torch wants driver 570 or newer: update it" if old else "")  # fmt: skip


def memory(pair: str | None) -> Iterator[Finding]:
    total, used, limit = psutil.virtual_memory().total, own_ray.memory_used(), own_ray.memory_limit()
    text = f"{used:.0%} of {total / _GB:.0f} GB in use; Ray ends workers above {limit:.0%}"
    yield Finding(STOP if used >= limit else OK, "memory", text, "free some" if used >= limit else "")
    if pair:
        yield from _planned(pair, total, used, limit)


def _planned(pair: str, total: float, used: float, limit: float) -> Iterator[Finding]:
    model, _, data = pair.rpartition("_")
    try:
        config = settings.compose("grpo", [f"model={model}", f"data={data}"])
        config.run.name = pair
        planned = memory_by_plan(config)
    except UserError as error:
        yield Finding(STOP, "memory", f"--pair {pair}: {error}", "name a pair of Running-Bash/study.yaml")
        return
    if planned:
        yield Finding(STOP if planned[1] else OK, "memory", planned[0], planned[1] or "")
    elif config.trainer.device == "cpu" and model in _CPU_GB:
        free, wanted = (limit - used) * total / _GB, _CPU_GB[model]
        short = free < wanted
        yield Finding(NOTE if short else OK, "memory", f"{pair} takes about {wanted:g} GB, {free:.1f} GB are free",
                      "fewer rollouts or queries, or another machine" if short else "")  # fmt: skip


def disk() -> Iterator[Finding]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    for what, folder in (("results", RESULT_DIR), ("models", REPO_ROOT / ".cache"), ("the Hub's cache", home)):
        there = folder
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK | os.X_OK):
            level, remedy = {
                "results": (NOTE, "give run.result_dir=<a folder of yours> to each run"),
                "models": (NOTE, "a model that is not there can't be made: have its owner run a script once"),
            }.get(what, (NOTE, "set HF_HOME to a folder that can be written to"))
            yield Finding(level, "disk", f"{what}: {folder} can't be written to", remedy)
            continue
        free = shutil.disk_usage(there).free / _GB
        level = STOP if free < 0.5 else NOTE if free < 10 else OK
        remedy = "a checkpoint takes 12 bytes per parameter: free some, or set run.result_dir"
        yield Finding(level, "disk", f"{what}: {free:.0f} GB free in {there}", "" if level == OK else remedy)


def shared_memory() -> Iterator[Finding]:
    place = Path("/dev/shm")
    free = shutil.disk_usage(place).free if place.is_dir() else 0
    small = free < _OBJECT_STORE
    yield Finding(NOTE if small else OK, "/dev/shm", f"{free / _GB:.1f} GB free",
                  "Ray falls back to the disk; in a container give --shm-size=2g" if small else "")  # fmt: skip


def locks() -> Iterator[Finding]:
    foreign = [path for folder in (RESULT_DIR, REPO_ROOT / ".cache/models") for path in folder.glob(".*.lock")
               if not os.access(path, os.R_OK)]  # fmt: skip
    going_on = [path for path in RESULT_DIR.glob(".*.lock") if path not in foreign and is_locked(path)]
    if going_on:
        names = ", ".join(path.name.removeprefix(".").removesuffix(".lock") for path in going_on[:3])
        yield Finding(NOTE, "locks", f"going on now: {names}", "wait for them, or they share the machine's cores")
    if foreign:
        yield Finding(STOP, "locks", f"{foreign[0]} is another user's and can't be read", "have it deleted")
    if not going_on and not foreign:
        yield Finding(OK, "locks", "none held; lock files that lie about are harmless")
    yield from _left_behind()


def _left_behind() -> Iterator[Finding]:
    """Processes of a run's Ray whose run, which holds the lock in its folder, is gone."""
    found = []
    for one in psutil.process_iter(["pid", "environ", "uids"]):
        folder = own_ray.private_folder(one.info["environ"] or {})
        mine = one.info["uids"] and one.info["uids"].real == os.getuid()
        if folder and mine and not is_locked(folder / own_ray.LOCK):
            found.append(one.info["pid"])
    if found:
        pids = " ".join(map(str, found))
        yield Finding(NOTE, "processes", f"of a killed run, gone within a minute or so: {pids}", f"else `kill -9 {pids}`")


def ports() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=2):
            pass
        places = own_ray.places()
        with tempfile.TemporaryDirectory(prefix=own_ray.PREFIX, dir=places[0]) as folder:
            path = Path(folder) / "socket"
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
        yield Finding(OK, "ports", f"127.0.0.1 answers; Ray's sockets lie below {places[0]}")
    except (OSError, IndexError) as error:
        yield Finding(STOP, "ports", f"no socket can be opened on 127.0.0.1 or in a folder ({error})",
                      "ask for the loopback interface; set RAY_TMPDIR to a short folder that can be written to")  # fmt: skip
    except UserError as error:
        yield Finding(STOP, "ports", str(error), "unset RAY_TMPDIR, or make it shorter")
    if address := os.environ.get("RAY_ADDRESS"):
        yield Finding(OK, "Ray", f"RAY_ADDRESS={address} is left alone: a run starts its own")


def hub() -> Iterator[Finding]:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield Finding(OK, "Hub", "HF_HUB_OFFLINE: not tried")
        return
    reason = _no_answer(address)
    if reason:
        remedy = "tiny_arith needs none; for others set HF_ENDPOINT or the proxy, or see Dataset/README.md"
        yield Finding(NOTE, "Hub", f"{address} does not answer ({reason})", remedy)
    else:
        yield Finding(OK, "Hub", f"{address} answers")


def _no_answer(address: str) -> str:
    """Why an address does not answer; empty if it does. In a thread: a name's look-up knows no time limit."""
    found = ["not within 4 s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=3)
            found[0] = ""
        except urllib.error.HTTPError:
            found[0] = ""
        except (OSError, ValueError, ImportError) as error:
            found[0] = str(getattr(error, "reason", error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(4)
    return found[0]


def threads() -> Iterator[Finding]:
    try:
        count = cores.threads()
    except UserError as error:
        yield Finding(STOP, "threads", str(error), "unset it")
        return
    usable, load = cores.usable(), os.getloadavg()[0]
    text = f"{count} threads on {usable} usable of {os.cpu_count()} cores, load {load:.1f}"
    if count > usable:
        yield Finding(NOTE, "threads", text, f"more threads than cores wait for each other: BANDIT_THREADS={usable}")
    elif load > usable:
        yield Finding(NOTE, "threads", text, "others compute here: a step takes a multiple")
    else:
        yield Finding(OK, "threads", text)


def start() -> Iterator[Finding]:
    if any(letter in sys.executable for letter in own_ray.UNSTARTABLE):
        yield Finding(STOP, "path", f"{sys.executable} has a quotation mark or a backslash", "move it, or set BANDIT_VENV")
    if os.pathsep in str(REPO_ROOT):
        yield Finding(STOP, "path", f"{REPO_ROOT} has a {os.pathsep}, at which PYTHONPATH is split", "move the repository")


def look(pair: str | None) -> Iterator[Finding]:
    """Every look in order; one that fails is a finding of its own."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python, packages, gpu, lambda: memory(pair), disk, shared_memory, locks, ports, hub, threads, start
    )  # fmt: skip
    for one in looks:
        try:
            yield from one()
        except Exception as error:  # a machine can be odd in any way; the other looks still say theirs
            name = getattr(one, "__name__", "memory")
            yield Finding(NOTE, name, f"could not be looked at ({type(error).__name__}: {error})")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Verl.doctor", description="What a run needs, and what is there.")
    parser.add_argument("--pair", help="a pair whose memory is planned for: tiny_arith, qwen0.5b_gsm, ...")
    options = parser.parse_args(argv)
    stops = 0
    for one in look(options.pair):
        stops += one.level == STOP
        print(f"{one.level:5}{one.about:10} {one.text}", flush=True)
        if one.remedy:
            print(f"{'':15} -> {one.remedy}", flush=True)
    print("a run could not start here: see STOP" if stops else "a run can start here")
    return 1 if stops else 0


if __name__ == "__main__":
    sys.exit(main())
