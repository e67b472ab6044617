"""What code changes about its process besides its own objects, as it was at one moment: for processes that outlive a run.

Not held, since nothing can say how it was: module attributes that a library replaces for good. verl replaces functions of
transformers by the settings that `host.marks` lists; runs that differ in those get processes of their own.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE)
_PACKAGE = str(Path(__file__).resolve().parents[1])  # Verl


@dataclass(frozen=True)
class ProcessState:
    """Environment, folder, random states, torch's switches, warnings, logging, signal handlers, names of modules."""

    environment: Mapping[str, str]
    folder: str
    path: tuple[str, ...]
    random: tuple[Any, Any, Any]
    torch: tuple[Any, ...]
    floating: Mapping[str, str]
    warnings: tuple[Any, ...]
    loggers: Mapping[logging.Logger, tuple[Any, ...]]
    handlers: Mapping[int, Any]
    modules: frozenset[str]

    @classmethod
    def now(cls) -> ProcessState:
        """As it is now."""
        return cls(
            environment=dict(os.environ),
            folder=os.getcwd(),
            path=tuple(sys.path),
            random=(random.getstate(), np.random.get_state(), torch.get_rng_state()),
            torch=_switches(),
            floating=np.geterr(),
            warnings=tuple(warnings.filters),
            loggers={logger: _described(logger) for logger in _loggers()},
            handlers={number: signal.getsignal(number) for number in _SIGNALS},
            modules=frozenset(sys.modules),
        )

    def restore(self, environment: bool = True) -> None:
        """As it was. Args: environment: whether the variables and the folder as well, or the caller sees to them."""
        if environment:
            os.environ.clear()
            os.environ.update(self.environment)
            os.chdir(self.folder)
        sys.path[:] = self.path
        self._forget_user_modules()
        random.setstate(self.random[0])
        np.random.set_state(self.random[1])
        torch.set_rng_state(self.random[2])
        _set_switches(self.torch)
        np.seterr(**self.floating)
        warnings.filters[:] = self.warnings
        with warnings.catch_warnings():
            pass  # leaving it makes Python forget which warnings it gave: they are given again, as in a fresh process
        for logger in _loggers():
            if logger in self.loggers:
                _describe(logger, self.loggers[logger])
        if threading.current_thread() is threading.main_thread():
            for number, handler in self.handlers.items():
                if handler is not None:  # None: set by C code, which Python can't set again
                    signal.signal(number, handler)
        gc.collect()

    def _forget_user_modules(self) -> None:
        """A user's own modules (a reward by pkg://, model.external_lib) are read again: they may have been edited, and may
        keep what they counted."""
        for name in set(sys.modules) - self.modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not file.startswith((sys.prefix, sys.base_prefix, _PACKAGE)):
                del sys.modules[name]


def _switches() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(), cudnn.deterministic, cudnn.benchmark, cudnn.enabled,
    )  # fmt: skip


def _set_switches(values: tuple[Any, ...]) -> None:
    threads, dtype, grad, deterministic, warn_only, precision, *cudnn = values
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    if torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled = cudnn


def _loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(one for one in list(known) if isinstance(one, logging.Logger))]


def _described(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.propagate, logger.disabled, tuple(logger.handlers), tuple(logger.filters)


def _describe(logger: logging.Logger, state: tuple[Any, ...]) -> None:
    level, logger.propagate, logger.disabled, handlers, filters = state
    if logger.level != level:
        logger.setLevel(level)
    logger.handlers[:], logger.filters[:] = handlers, filters
