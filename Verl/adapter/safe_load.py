"""Checkpoints are read as data: loading somebody else's runs no code of theirs.

verl 0.9.1 reads weights, optimizer, random states and the data's position with `torch.load(weights_only=False)`, which runs
whatever a file says. TORCH_FORCE_WEIGHTS_ONLY_LOAD, which the launcher sets, has torch read them by its own reader of
tensors and plain values instead; numpy's random state needs three names more, which only make arrays. Imported by
`import verl` in every process of a run (VERL_USE_EXTERNAL_MODULES).

What can't be had this way: verl's loader still reads a folder `huggingface/` by transformers, which runs code from it only
with `trust_remote_code`, and that is off.
"""

import numpy as np
import torch
import torch.distributed.tensor  # what weights and optimizer states are saved as; torch then knows them as data

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
