"""A Ray of the run's own: nobody else's cluster, on this machine's loopback only, with a private folder and token.

Left to itself `ray.init` joins whatever cluster RAY_ADDRESS or `ray start` name, listens on every interface, keeps its token
where the umask lets others read it, and puts its sockets below TMPDIR, however long that is. A run on several nodes
(`trainer.nnodes`) joins the cluster that it is given instead, which has its own ways; docs/environment.md says what is
then open.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf

from Verl import cores
from Verl.adapter.device import Device
from Verl.adapter.interface import replaced
from Verl.errors import UserError

PREFIX = "bandit-"
_THRESHOLD = "RAY_memory_usage_threshold"  # Ray's name
LOCK, _TOKEN = "lock", "token"
UNSTARTABLE = "'\"\\\n"  # letters in Python's path through which Ray can start no worker
# A socket's path has at most 107 bytes, of which Ray takes "/session_<date>_<time>_<process>/sockets/plasma_store".
_LONGEST = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_OLD_SECONDS = 600.0  # a folder that nobody holds by then is one that a kill left behind
# What would make Ray join somebody's cluster, or take its keys.
_FOREIGN = ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE", "RAY_GCS_SERVER_PORT")
_held: list[tuple[Path, int]] = []  # the folder in use and its lock


def is_own(config: DictConfig) -> bool:
    """Whether the run is on one machine and starts its Ray, in place of joining a cluster."""
    return config.trainer.nnodes == 1


def set_environment(config: DictConfig) -> None:
    """What Ray and what starts below it must know before Ray is imported."""
    # Ray's workers would run with niceness 15: beside any other work a run would hardly come to compute.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not is_own(config):
        return
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ["RAY_AUTH_MODE"] = "token"
    # Ray's name for "no other machine will join": its address is then 127.0.0.1, on which alone it listens (services.py).
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    for name in ("no_proxy", "NO_PROXY"):  # a proxy is no way to this machine itself
        given = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = ",".join(dict.fromkeys([*given, "127.0.0.1", "localhost"]))


def start(config: DictConfig, device: Device, runtime: dict[str, Any]) -> None:
    """Bring Ray up.

    Args:
        runtime: verl's runtime environment of the workers.

    Raises:
        UserError: the machine is in no state for it; the sentence says what to do.
    """
    import ray

    options = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    requested = options.pop("runtime_env", None) or {}
    runtime["env_vars"] |= {"TRANSFER_QUEUE_ENABLE": "1"} | requested.get("env_vars", {})
    # Ray starts a worker through a line of bash, into which it puts Python's path as it is: a space there splits it.
    runtime["py_executable"] = shlex.quote(sys.executable)
    # Its warnings tell of the token that is on.
    ours = {"include_dashboard": False, "logging_level": "error" if is_own(config) else "warning"}
    options = ours | device.ray_options(options, config.trainer.n_gpus_per_node)
    if is_own(config):
        folder = _folder()
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_write_token(folder))
        options |= {"address": "local", "_temp_dir": str(folder / "ray")}  # which Ray opens to all: not `folder`
    unneeded = {"start_monitor": _left_out} | ({} if options["include_dashboard"] else {"start_api_server": _left_out})
    with replaced(**unneeded) if is_own(config) else nullcontext():
        ray.init(**options, runtime_env={key: value for key, value in runtime.items() if value is not None})


def _left_out(node: Any, **settings: Any) -> None:
    """In place of what starts a process that a run on one machine does not need."""


def private_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the run's Ray, in each of its processes; None where the run joined a cluster.

    Args:
        environment: of the process that is asked about.
    """
    token = environment.get("RAY_AUTH_TOKEN_PATH")
    return Path(token).parent if token and Path(token).parent.name.startswith(PREFIX) else None


def said_last() -> str:
    """The last line of Ray's own error logs, with the file's name; empty where there is none."""
    for folder, _ in _held:
        logs = [path for pattern in ("worker*.err", "raylet.err", "runtime_env*.log") for path in
                sorted((folder / "ray").glob(f"session_latest/logs/{pattern}"))]  # fmt: skip
        for path in logs:
            with suppress(OSError):
                if lines := [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]:
                    return f"{path.name} ends with: {lines[-1][:300]}"
    return ""


def is_up() -> bool:
    """Whether Ray runs, or its end is still under way."""
    ray = sys.modules.get("ray")
    return bool(_held) or (ray is not None and ray.is_initialized())


def why(error: BaseException) -> str | None:
    """A sentence for what Ray raises where a worker was ended from outside; None for everything else."""
    name, text = type(error).__name__, str(error)
    if "OutOfMemoryError" in name and "ray" in type(error).__module__:
        return (
            f"memory ran out: Ray ended a worker, since more than {memory_limit():.0%} of this machine's was in use; free "
            "some, or take a smaller model, fewer rollouts or a smaller data.train_batch_size"
        )
    if name in ("ActorDiedError", "RayActorError", "WorkerCrashedError") and (
        "SIGKILL" in text or "connection error" in text
    ):
        return (
            "a worker ended without a word: killed, by the kernel where memory ran out (`dmesg` says so) or by somebody, or "
            "crashed (the log says where); the same command goes on from the last checkpoint"
        )
    return None


def stop() -> None:
    """End Ray, if it runs, and remove its folder."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
    for folder, handle in list(_held):
        if os.environ.get("RAY_AUTH_TOKEN_PATH") == str(folder / _TOKEN):
            del os.environ["RAY_AUTH_TOKEN_PATH"]
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)
        _held.remove((folder, handle))


# ---- what is checked first -------------------------------------------------------------------------------------------


def check_start(config: DictConfig) -> None:
    """Refuse a start that could not succeed on this machine.

    Raises:
        UserError: with the reason.
    """
    cores.threads()
    if not is_own(config):
        return
    places()
    if any(letter in sys.executable for letter in UNSTARTABLE):
        raise UserError(
            f"{sys.executable} has a quotation mark or a backslash in its path, through which Ray can start no worker: move "
            "the repository, or set BANDIT_VENV to an environment elsewhere"
        )
    used, limit = memory_used(), memory_limit()
    if used >= limit:
        raise UserError(
            f"{used:.0%} of this machine's memory is in use, and Ray ends every worker above {limit:.0%}: free some, or set "
            "RAY_memory_usage_threshold"
        )


def memory_limit() -> float:
    """The share of main memory in use above which Ray ends workers."""
    try:
        return float(os.environ[_THRESHOLD])
    except (KeyError, ValueError):
        return 0.95


def memory_used() -> float:
    """The share of main memory that is in use, of the container's where there is one with a limit, as Ray reckons it."""
    machine = psutil.virtual_memory()
    shares = [1 - machine.available / machine.total]
    for limit, used, kept, files in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file "),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file "),
    ):
        with suppress(OSError, ValueError, StopIteration):
            top = Path("/sys/fs/cgroup")
            most, now = int((top / limit).read_text()), int((top / used).read_text())
            lines = (top / kept).read_text().splitlines()
            now -= next(int(line.split()[1]) for line in lines if line.startswith(files))
            if most < machine.total:
                shares.append(now / most)
    return max(shares)


# ---- its folder ------------------------------------------------------------------------------------------------------


def places() -> list[Path]:
    """Folders in which Ray's may be made, the first that will do counts: RAY_TMPDIR alone where it is set.

    Raises:
        UserError: RAY_TMPDIR is too long.
    """
    longest = _LONGEST - len(f"/{PREFIX}") - 8
    given = os.environ.get("RAY_TMPDIR")
    if given:
        if len(os.fsencode(os.path.abspath(given))) > longest:
            raise UserError(
                f"RAY_TMPDIR={given} has more than {longest} bytes, too many for the sockets below it: choose a shorter path"
            )
        return [Path(os.path.abspath(given))]
    candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    return [Path(one) for one in dict.fromkeys(candidates) if len(os.fsencode(one)) <= longest]


def _folder() -> Path:
    """A new folder that only this user can enter, held until `stop`."""
    last: OSError | None = None
    for place in places():
        try:
            place.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            last = error
            continue
        _held.append((folder, handle))
        _sweep(place)
        return folder
    raise UserError(f"no folder for Ray's sockets ({last}): set RAY_TMPDIR to a short path that can be written to")


def _write_token(folder: Path) -> Path:
    path = folder / _TOKEN
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(_secret())
    return path


@cache
def _secret() -> str:
    """One for all that this process starts: Ray's core reads the token once."""
    return secrets.token_hex(32)


def _sweep(place: Path) -> None:
    """Remove the folders of runs that were killed: ours, held by nobody, and not of the last minutes."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            old = time.time() - about.st_mtime > _OLD_SECONDS
            if not old or about.st_uid != os.getuid() or not stat.S_ISDIR(about.st_mode):
                continue
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
