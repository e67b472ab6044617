"""What generates: our own decoder on a CPU, vLLM on a GPU. Both take and give what `Verl.adapter.generation` defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from Verl import cores
from Verl.adapter.device import device_for
from Verl.adapter.generation import Completion, Request, end_tokens
from Verl.adapter.load_checkpoint import export_checkpoint, load_checkpoint
from Verl.errors import UserError
from Verl.evaluation.models import ModelSource

Tick = Callable[[int], None]  # called while a batch is decoded, with the number of tokens that its responses have so far


class Backend(Protocol):
    """Generates responses to a batch of requests, in their order."""

    def generate(self, requests: Sequence[Request], tick: Tick) -> list[Completion]: ...


def choose_device(requested: str) -> str:
    """Either "cpu" or "cuda"; "auto" takes the GPU where there is one that can be used. Raises UserError."""
    has_gpu, has_vllm = torch.cuda.is_available(), find_spec("vllm") is not None
    if requested == "auto":
        return "cuda" if has_gpu and has_vllm else "cpu"
    if requested == "cuda" and not has_gpu:
        raise UserError("--device cuda: no GPU is visible here; give --device cpu")
    if requested == "cuda" and not has_vllm:
        raise UserError("--device cuda needs vllm: pip install -r requirements-gpu.txt, or give --device cpu")
    return requested


def open_backend(source: ModelSource, tokenizer: Any, device: str, rows: int, tokens: int, work: Path) -> Backend:
    """Loads the model.

    Args:
        rows: responses decoded together.
        tokens: longest prompt plus longest response.
        work: a folder for what a backend has to write first.
    """
    if device == "cpu":
        return CPUBackend(source, tokenizer, rows)
    return VLLMBackend(source, rows, tokens, work)


class CPUBackend:
    """The decoder of `rollout.name=hf`, so that an evaluation says what a rollout would say. fp32: bf16 is far slower on
    a CPU without units for it."""

    def __init__(self, source: ModelSource, tokenizer: Any, rows: int):
        torch.set_num_threads(cores.threads())
        model = self._load(source)
        self.decoder = device_for("cpu").decoder(model, end_tokens(tokenizer, model.generation_config), rows)

    def _load(self, source: ModelSource) -> Any:
        if source.kind == "checkpoint":
            return load_checkpoint(Path(source.name).expanduser(), torch.float32)
        from transformers import AutoModelForCausalLM

        name = source.name if source.kind == "hub" else source.tokenizer
        try:
            return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa")
        except (OSError, ValueError) as error:
            raise UserError(f"--model {source.name} can't be loaded ({str(error).splitlines()[0]})") from error

    def generate(self, requests: Sequence[Request], tick: Tick) -> list[Completion]:
        length = 0

        def count(module: Any, arguments: tuple, named: dict[str, Any], output: Any) -> None:
            nonlocal length
            if named["input_ids"].shape[1] == 1:  # a decoding step; the prompts go through whole
                length += 1
                tick(length)

        # The decoder calls nobody back, and a batch of long responses takes minutes on a CPU.
        hook = self.decoder.model.register_forward_hook(count, with_kwargs=True)
        try:
            return self.decoder.generate(requests)
        finally:
            hook.remove()


class VLLMBackend:
    """vLLM in this process, bf16 as in training. The mapping of requests and answers is tested with a stand-in; vLLM
    itself needs a GPU, which the machine this was written on lacks."""

    def __init__(self, source: ModelSource, rows: int, tokens: int, work: Path):
        from vllm import LLM

        name = source.name if source.kind == "hub" else source.tokenizer
        if source.kind == "checkpoint":
            name = str(work / "model")
            export_checkpoint(Path(source.name).expanduser(), Path(name))
        self.engine = LLM(
            model=name,
            dtype="bfloat16",
            max_model_len=tokens,
            max_num_seqs=rows,
            # of the distribution that was sampled from, as the decoder reports them
            logprobs_mode="processed_logprobs",
        )

    def generate(self, requests: Sequence[Request], tick: Tick) -> list[Completion]:
        from vllm import SamplingParams, TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in requests]
        parameters = [
            SamplingParams(
                temperature=request.temperature,
                top_k=request.top_k,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                seed=request.seed,
                logprobs=0,
            )
            for request in requests
        ]
        answers = [output.outputs[0] for output in self.engine.generate(prompts, parameters, use_tqdm=False)]
        return [
            Completion(
                token_ids=list(answer.token_ids),
                log_probs=[
                    entry[token].logprob for entry, token in zip(answer.logprobs, answer.token_ids, strict=True)
                ],
                stop_reason="length" if answer.finish_reason == "length" else "completed",
            )
            for answer in answers
        ]
