"""The settings of an evaluation, and the checks that need no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from Verl.errors import UserError
from Verl.evaluation.queries import fingerprint

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class EvalSettings:
    """One evaluation.

    The defaults are the published metric: one sample per question at temperature 1.0, prompts of at most 512 tokens
    (longer ones are left out, and counted), responses of at most 1,024.

    Args:
        model: a model folder, a Hub name, or a checkpoint `<run>/checkpoints/global_step_<k>`.
        data: a prepared parquet file.
        out: folder for `responses.parquet` and `evaluation.json`.
        limit: the first so many rows of the file; None takes all. Counted before long prompts are left out, so that
            two models with different tokenizers answer the same questions.
        samples: responses per question at `temperature`; 0 with `greedy` alone.
        greedy: also one answer per question at temperature 0.
        seed: random numbers of a response depend on (seed, question, sample) alone.
        batch: responses decoded together; what is finished is kept batch by batch.
        against: the folder of another evaluation, to test the difference.
        reward_function: (file, name) of a function that scores questions which no rule of ours can, as
            `reward.custom_reward_function` of a run.
        template: values for the chat template, as `data.apply_chat_template_kwargs` of a run; empty with a checkpoint:
            those of its run. Llama's template writes today's date into the prompt unless it is given a `date_string`.
        chat_template: the text of a chat template in the place of the tokenizer's own.
    """

    model: str
    data: Path
    out: Path
    limit: int | None = None
    samples: int = 1
    temperature: float = 1.0
    greedy: bool = False
    max_prompt_length: int = 512
    max_response_length: int = 1024
    seed: int = 0
    batch: int = 64
    device: str = "auto"
    against: Path | None = None
    template: dict[str, str] = field(default_factory=dict)
    reward_function: tuple[str, str] | None = None
    chat_template: str | None = None

    def check(self) -> None:
        """Raises UserError for a value that makes no sense."""
        for name in ("limit", "max_prompt_length", "max_response_length", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: it must be at least 1")
        if self.samples < 0 or (self.samples == 0 and not self.greedy):
            raise UserError(f"--samples {self.samples}: it must be at least 1, or 0 together with --greedy")
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"--temperature {self.temperature}: it must be above 0; greedy decoding is --greedy --samples 0"
            )
        if self.device not in DEVICES:
            raise UserError(f"--device {self.device}: it must be one of {', '.join(DEVICES)}")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file: give a folder")
        if self.against is not None and self.against.resolve() == self.out.resolve():
            raise UserError("--against is the same folder as --out: give the folder of another evaluation")

    def decoding(self) -> dict[str, Any]:
        """What two evaluations must share to be compared question by question."""
        names = ("samples", "temperature", "max_prompt_length", "max_response_length")
        return {name: getattr(self, name) for name in names}

    def identity(self, model: str, data: str, device: str) -> dict[str, Any]:
        """What decides the responses: two calls with the same identity are one evaluation, and the second goes on where
        the first stopped. `model` and `data` are fingerprints of the contents, so a moved folder stays the same."""
        values = asdict(self)
        for name in ("model", "data", "out", "against", "device"):
            del values[name]
        if self.chat_template is None:
            del values["chat_template"]
        if self.reward_function is None:
            del values["reward_function"]
        else:
            path, name = self.reward_function
            values["reward_function"] = [fingerprint(Path(path)), name]
        return {"model": model, "data": data, "device": device, **values}
