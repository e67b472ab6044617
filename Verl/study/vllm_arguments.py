"""What verl would pass to vLLM for a run, given to vLLM's own argument parser: nothing is started, no GPU is needed.

    python -m Verl.study.vllm_arguments                                    every script whose pair runs on a GPU
    python -m Verl.study.vllm_arguments run_grpo_0032_8_qwen0.5b_gsm.sh    the ones named, with what vLLM understood

verl 0.9.1 starts vLLM as `vllm serve` would be: `vLLMHttpServer.launch_server` (verl/workers/rollout/vllm_rollout/
vllm_async_server.py) turns the config into a command line, has vLLM's parser read and check it, and hands the result to
`run_server`. Here that very method runs, and `run_server` keeps the result instead of starting an engine. It needs vLLM
to be importable (requirements-gpu.txt, also on a machine without a GPU; or the set-up for a CPU), and of a model only
its context length, which Running-Bash/study.yaml has, so that nothing is downloaded.
"""

import argparse
import asyncio
import contextlib
import io
import sys
from contextlib import nullcontext
from types import SimpleNamespace

from omegaconf import DictConfig

from Verl.adapter.device import device_for
from Verl.adapter.interface import replaced
from Verl.design.declared import load
from Verl.errors import UserError
from Verl.study.shipped import Prepared, prepare

# Shown for a named script: what decides memory, precision and speed.
SHOWN = ("model", "dtype", "load_format", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
         "gpu_memory_utilization", "enable_sleep_mode", "enforce_eager", "logprobs_mode", "seed")  # fmt: skip


def engine_arguments(config: DictConfig, context: int):
    """vLLM's `AsyncEngineArgs` for a run, as its parser made them of what verl passes.

    Args:
        config: a composed config with `rollout.name=vllm`.
        context: the model's `max_position_embeddings`.

    Raises:
        UserError: with the parser's sentence, if it rejects an argument.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    server, said = _server(config, context), io.StringIO()
    # A build for GPUs on a machine without one, where its parser has no default.
    device = nullcontext() if current_platform.device_type else replaced(device_type=config.trainer.device)
    try:
        with device, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            asyncio.run(server.launch_server())
    except (SystemExit, ValueError) as error:
        last = (said.getvalue().strip() or str(error)).splitlines()[-1]
        raise UserError(f"{config.run.name}: vLLM rejects what verl would pass: {last}") from error
    return AsyncEngineArgs.from_cli_args(server.parsed)


def _server(config: DictConfig, context: int):
    class Server(device_for(config.trainer.device).vllm_server()):
        """verl's server without its constructor, which opens ports and asks Ray for its job."""

        def __init__(self) -> None:
            model = config.actor_rollout_ref.model
            self.config = self._init_config(config.actor_rollout_ref.rollout)
            self.model_config = SimpleNamespace(
                local_path=model.path,
                trust_remote_code=model.trust_remote_code,
                lora=dict(model.lora),
                lora_rank=model.lora_rank,
                hf_config=SimpleNamespace(max_position_embeddings=context),
            )
            self.replica_rank, self.node_rank, self.nnodes = 0, 0, 1
            self._disaggregation_role = "null"
            self.parsed: argparse.Namespace | None = None
            self._validate_configs()

        def _should_profile(self) -> bool:
            return False

        async def run_server(self, args: argparse.Namespace) -> None:
            self.parsed = args

    return Server()


def gpu_scripts() -> list[str]:
    """The scripts of all pairs that study.yaml plans on a machine with GPU memory."""
    study = load()
    on_gpu = {name for name, machine in study.machines.items() if "memory_gib" in machine}
    return [script for script, (_, pair) in study.scripts.items() if pair.machine in on_gpu]


def check(scripts: list[str]) -> list[tuple[Prepared, object]]:
    """(run, vLLM's arguments) of each script. Raises UserError for the first that vLLM's parser rejects."""
    contexts = {name: sizes["context"] for name, sizes in load().models.items()}
    runs = [prepare(script, ["trainer.device=cuda"]) for script in scripts]
    return [(run, engine_arguments(run.config, contexts[run.config.run.model])) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(prog="Verl.study.vllm_arguments")
    parser.add_argument("scripts", nargs="*", help="names of scripts in Running-Bash; none: all for a GPU")
    named = parser.parse_args().scripts
    try:
        import vllm
    except ImportError as error:
        print(f"error: vLLM can't be imported ({error}): install requirements-gpu.txt", file=sys.stderr)
        sys.exit(2)
    try:
        checked = check(named or gpu_scripts())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for run, arguments in checked if named else ():
        print(f"{run.script}: " + ", ".join(f"{name}={getattr(arguments, name)}" for name in SHOWN))
    print(f"vLLM {vllm.__version__} accepts what verl would pass it for {len(checked)} scripts")


if __name__ == "__main__":
    main()
