r"""Writes a run's checkpoint as a Hugging Face folder that transformers and vLLM load.

    python -m Verl.trainer.main_export --model grpo_0032_8_tiny_arith_seed0 --best --out exported/grpo

Without --step or --best: the run's last checkpoint. The weights keep the type they were trained in, and the exported
model's answers are the checkpoint's. Exit status: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from Verl import RESULT_DIR
from Verl.errors import UserError
from Verl.signals import raise_on_stop
from Verl.trainer.export import ChosenCheckpoint, check_out, choose, write_whole


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="Verl.trainer.main_export", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", required=True, help="a run (name or folder), or <run>/checkpoints/global_step_<k>")
    add("--out", required=True, type=Path, help="folder to write; it must not exist, or be empty")
    add("--step", type=int, help="of the run's saved steps; default: the last one")
    add("--best", action="store_true", help="the saved step with the best validation Pass@1")
    add("--push", metavar="NAME", help="also upload it to the Hugging Face Hub; a new repository is made private")
    add("--result", type=Path, default=RESULT_DIR, metavar="DIR", help="where runs are looked for by name")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = parse(arguments)
    console, errors = (
        Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False) for stderr in (False, True)
    )
    try:
        check_out(options.out)
        chosen = choose(options.model, options.result, options.step, options.best)
        if options.push:
            _check_push(options.push)  # before the work, not after it
        write_whole(options.out, lambda folder: _fill(folder, chosen))
        step = "" if chosen.step is None else f"step {chosen.step}, "
        console.print(f"{options.out}: {step}{chosen.why}")
        if options.push:
            console.print(_push(options.out, options.push))
    except UserError as error:
        errors.print(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted: nothing was exported" if not options.out.exists() else "interrupted")
        return 130
    return 0


def _fill(folder: Path, chosen: ChosenCheckpoint) -> None:
    """The exported model and its card into an empty folder."""
    _quiet()
    from Verl.adapter.load_checkpoint import export_checkpoint  # late: torch and transformers take seconds
    from Verl.evaluation.models import find_model, load_tokenizer
    from Verl.trainer.model_card import write_card

    source = find_model(str(chosen.checkpoint))
    if source.kind != "checkpoint":
        raise UserError(f"--model {chosen.checkpoint} is a model folder already, not a checkpoint of a run")
    load_tokenizer(source)  # what is wrong with it is said in one sentence
    export_checkpoint(chosen.checkpoint, folder)
    write_card(folder, chosen, source.fingerprint)


def _quiet() -> None:
    """No progress bars and advice of transformers between our lines."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()


def _check_push(name: str) -> None:
    """Raises UserError unless the Hub is there, knows us, and takes the name."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    from Verl.data.hub import go_offline_unless_reachable

    try:
        validate_repo_id(name)
        go_offline_unless_reachable("gpt2")
        if os.environ.get("HF_HUB_OFFLINE"):
            raise UserError(f"--push {name}: the Hugging Face Hub can't be reached from here: leave --push out")
        HfApi().whoami()
    except UserError:
        raise
    except Exception as error:  # a bad name, no login, a token that has expired, the network
        raise UserError(
            f"--push {name}: {_first_line(error)}; give <owner>/<name> and log in with `hf auth login`, or leave --push out"
        ) from error


def _push(folder: Path, name: str) -> str:
    """Upload the folder; where it is now. Raises UserError, and the folder stays."""
    from huggingface_hub import HfApi

    try:
        url = HfApi().create_repo(name, private=True, exist_ok=True)
        HfApi().upload_folder(folder_path=str(folder), repo_id=url.repo_id, commit_message="Upload of an exported checkpoint")
    except Exception as error:
        raise UserError(
            f"--push {name}: {_first_line(error)}; {folder} is written all the same: `hf upload {name} {folder}` uploads it"
        ) from error
    return f"pushed to {url}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"


if __name__ == "__main__":
    raise_on_stop()
    sys.exit(main())
