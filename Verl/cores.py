"""How many cores this process may use, and how many threads a run computes with.

`os.cpu_count()` counts the machine's cores. A container or a job system gives fewer, as an affinity (SLURM, taskset) or
as a quota of time (Docker's `--cpus`, Kubernetes): more threads than that wait for each other.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from Verl.errors import UserError

VARIABLE = "BANDIT_THREADS"
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable(cgroups: Path = _CGROUPS, own_groups: Path = _OWN_GROUPS) -> int:
    """Cores that this process may run on, at least 1: the affinity, and a cgroup's quota rounded up."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _quota(cgroups, own_groups)
    return max(1, cores if quota is None else min(cores, -int(-quota // 1)))


def threads() -> int:
    """BANDIT_THREADS, or the usable cores.

    Raises:
        UserError: BANDIT_THREADS is no whole number from 1 up.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return usable()
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise UserError(
            f"{VARIABLE}={given} must be a whole number from 1 up: the threads of a run; unset it for {usable()}"
        )
    return int(given)


def _quota(cgroups: Path, own_groups: Path) -> float | None:
    """The smallest quota, in cores, of this process's cgroup and of those above it (cgroup v2 and v1); None: there is none."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:  # number:controllers:path; v2 has no controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups if not controllers else cgroups / "cpu"
        # Inside a container the path is often the host's, and what holds is at the top of what is mounted.
        for place in [top, *(top / parent for parent in _below_root(path))]:
            found.append(_read_v2(place) if not controllers else _read_v1(place))
    return min((one for one in found if one is not None), default=None)


def _below_root(path: str) -> list[str]:
    pure = PurePosixPath(path.lstrip("/"))
    return [str(one) for one in (pure, *pure.parents) if ".." not in one.parts]


def _read_v2(place: Path) -> float | None:
    """cpu.max: "<microseconds of computing, or max> <of so many>"."""
    try:
        allowed, period = (place / "cpu.max").read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_v1(place: Path) -> float | None:
    try:
        allowed, period = (int((place / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return allowed / period if allowed > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
