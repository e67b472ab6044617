r"""Evaluates one model on one prepared set, and tests it against another evaluation of the same questions.

    python -m Verl.trainer.main_eval --model tiny --data arith --out Running-Results/result/eval_tiny
    python -m Verl.trainer.main_eval --model <folder> --data Dataset/arithmetic/data/test.parquet --out <folder>

A model or data set by name is what `model=` and `data=` of a run choose: prepared on first use, with its lengths, its
values for the chat template and its reward function.
Without further options: the published metric, one sample per question at temperature 1.0. Ctrl-C loses at most one
batch; the same command goes on. Exit status: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from Verl import REPO_ROOT
from Verl.data.row_checks import DataError
from Verl.errors import UserError
from Verl.evaluation.settings import DEVICES, EvalSettings
from Verl.signals import raise_on_stop
from Verl.trainer import preparation
from Verl.trainer import settings as groups
from Verl.trainer.chat_template import read_template

SPLITS = {"train": "train_files", "validation": "val_files", "test": "test_files"}
_DEFAULT = EvalSettings(model="", data=Path(), out=Path())


def parse(arguments: Sequence[str] | None = None) -> EvalSettings:
    """The command line as settings."""
    parser = argparse.ArgumentParser(
        prog="Verl.trainer.main_eval", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", required=True, help="name, model folder, Hub name, or <run>/checkpoints/global_step_<k>")
    add("--data", required=True, type=Path, help="name of a data set, or a prepared parquet file")
    add("--split", choices=SPLITS, help="of a data set that is given by name (default: test)")
    add("--out", required=True, type=Path, help="folder for responses.parquet and evaluation.json")
    add("--against", type=Path, help="folder of another evaluation: tests the difference on the same questions")
    add("--limit", type=int, help="only the first so many rows of the file (default: all)")
    add(
        "--samples",
        type=int,
        default=_DEFAULT.samples,
        help="samples per question; avg@k, pass@k and maj@k use them all",
    )
    add("--temperature", type=float, default=_DEFAULT.temperature, help="of the samples (default: %(default)s)")
    add("--greedy", action="store_true", help="also one answer per question at temperature 0")
    add("--max-prompt-length", type=int, help="in tokens; longer ones are left out (default: 512, or the data set's)")
    add("--max-response-length", type=int, help="in tokens (default: 1024, or the data set's)")
    add("--seed", type=int, default=_DEFAULT.seed, help="of the samples (default: %(default)s)")
    add("--batch", type=int, default=_DEFAULT.batch, help="responses decoded together (default: %(default)s)")
    add("--device", choices=DEVICES, default=_DEFAULT.device, help="auto: the GPU where there is one and vllm")
    add(
        "--template",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value for the chat template, e.g. date_string='26 Jul 2024' with Llama; may be given more than once",
    )
    text = "with a chat template, in the place of the tokenizer's own; a checkpoint carries that of its run"
    add("--chat-template", type=Path, metavar="FILE", help=text)
    values = vars(parser.parse_args(arguments))
    if path := values["chat_template"]:
        values["chat_template"] = read_template(path, f"--chat-template {path}")
    pairs = [pair.partition("=") for pair in values["template"]]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        parser.error(f"--template {wrong[0]}: give NAME=VALUE")
    values["template"] = {name: value for name, _, value in pairs}
    return _by_name(values, values.pop("split"))


def _by_name(values: dict[str, Any], split: str | None) -> EvalSettings:
    """The settings, with what the files of a model and a data set say that are given by their names."""
    chosen = {
        kind: str(values[kind])
        for kind in groups.GROUPS
        if str(values[kind]) in groups.names(kind) and not Path(values[kind]).exists()
    }
    known = ", ".join(groups.names("data"))
    if split and "data" not in chosen:
        raise UserError(f"--split {split} is for a data set by name ({known}), and --data {values['data']} is none")
    config = groups.compose("grpo", [f"{kind}={name}" for kind, name in chosen.items()]) if chosen else None
    for length in ("max_prompt_length", "max_response_length"):
        if values[length] is None:
            values[length] = config.data[length] if config else getattr(_DEFAULT, length)
    if config is None:
        return EvalSettings(**values)
    if "data" not in chosen and not values["data"].exists():  # before a model is prepared, which takes minutes
        raise UserError(f"--data {values['data']}: no such file, and no data set of that name: choose {known}, or give a file")
    if "data" in chosen:
        values["data"] = Path(_here(_one_file(chosen["data"], config.data[SPLITS[split or "test"]])))
        function = config.reward.custom_reward_function
        values["reward_function"] = (_here(function.path), function.name) if function.path else None
    if "model" in chosen:
        path = config.actor_rollout_ref.model.path
        values["model"] = _here(path) if config.run.prepare.model.folder else path
        values["template"] = values["template"] or dict(config.data.apply_chat_template_kwargs)
    if status := preparation.prepare(config):
        sys.exit(status)
    return EvalSettings(**values)


def _one_file(name: str, files: Any) -> str:
    if not isinstance(files, str):
        raise UserError(f"--data {name} stands for several files ({', '.join(files)}): give one of them")
    return files


def _here(path: str) -> str:
    """A path that begins at the repository's root, as from where we are."""
    return os.path.relpath(REPO_ROOT / path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        settings = parse(arguments)
        settings.check()
        _quiet()
        from Verl.evaluation.run import evaluate  # late: torch and transformers take seconds

        evaluate(settings, Console(markup=False))
    except (UserError, DataError) as error:
        errors.print(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted: the finished batches are kept, the same command goes on")
        return 130
    return 0


def _quiet() -> None:
    """No progress bars and advice of transformers between our lines."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()


if __name__ == "__main__":
    raise_on_stop()
    sys.exit(main())
