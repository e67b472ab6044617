"""The packages, exact, that a machine with torch lacks for the check: `python -m tests.gpu.packages`, for bring.sh."""

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

from Verl import REPO_ROOT

# What only tests, figures and other data sets import, and what a machine with torch has.
NOT_NEEDED = {"ruff", "import-linter", "pytest", "pytest-xdist", "matplotlib", "statsmodels", "gguf", "setuptools",
              "cellpylib", "pycosat", "zss"}  # of reasoning-gym, for other tasks than ours
THERE = {"torch", "triton", "sympy", "mpmath", "networkx", "pip", "setuptools"}
_EXTRAS = {"ray": set(), "uvicorn": set()}  # the dashboard of ray[default] is never started


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def closure(required: list[str], python: str = "3.12") -> dict[str, str]:
    """Name and version, as installed here, of these packages and of all that they require."""
    found: dict[str, str] = {}
    waiting = [Requirement(text) for text in required]
    while waiting:
        one = waiting.pop()
        name = name_of(one.name)
        extras = _EXTRAS.get(name, one.extras)
        environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
        if one.marker and not any(one.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
            continue
        if name in found or name in THERE | NOT_NEEDED or name.startswith(("nvidia-", "cuda-")):
            continue
        try:
            there = distribution(name)
        except PackageNotFoundError:  # of an extra that is not used
            continue
        found[name] = there.version
        for text in there.requires or []:
            part = Requirement(text)
            if part.marker is None or any(part.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
                waiting.append(part)
    return found


def needed() -> list[str]:
    """requirements-common.txt without what is not needed on a machine that only trains."""
    lines = [line.split("#")[0].strip() for line in (REPO_ROOT / "requirements-common.txt").read_text().splitlines()]
    return [line for line in lines if line and name_of(Requirement(line).name) not in NOT_NEEDED]


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(closure(needed()).items())))
