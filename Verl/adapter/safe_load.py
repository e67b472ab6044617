"""Checkpoints are read as data: loading somebody else's runs no code of theirs.

verl 0.9.1 reads weights, optimizer, random states and the data's position with `torch.load(weights_only=False)`, which runs
whatever a file says. Here every file is read by torch's own reader of tensors and plain values; numpy's random state needs
three names more, which only make arrays. What the processes of a run send each other is no file and is read as verl asks
(torch's own switch, TORCH_FORCE_WEIGHTS_ONLY_LOAD, would refuse that too, and no rollout of an agent loop would arrive).
Imported by `import verl` in every process of a run (VERL_USE_EXTERNAL_MODULES).

What can't be had this way: verl's loader still reads a folder `huggingface/` by transformers, which runs code from it only
with `trust_remote_code`, and that is off.
"""

import os
from typing import Any

import numpy as np
import torch
import torch.distributed.tensor  # what weights and optimizer states are saved as; torch then knows them as data

from Verl.adapter.interface import replaced

_makes_an_array = np.empty(0).__reduce__()[0]
torch.serialization.add_safe_globals(
    [
        np.ndarray,
        np.dtype,
        type(np.dtype(np.uint32)),
        (_makes_an_array, "numpy._core.multiarray._reconstruct"),
        (_makes_an_array, "numpy.core.multiarray._reconstruct"),
    ]
)

_load = torch.load


def load(f: Any, *arguments: Any, **settings: Any) -> Any:
    """`torch.load`, which reads a file as data whatever it is asked for."""
    if isinstance(f, str | os.PathLike):
        settings["weights_only"] = True
    return _load(f, *arguments, **settings)


_while_the_process_lives = replaced(load=load)
_while_the_process_lives.__enter__()
