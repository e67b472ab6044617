"""Every name of verl 0.9.1 that is not documented as stable and that we build on, with the reason.

tests/adapter/test_interface.py checks each of them, so that a new verl fails there, with this text, and not in the
middle of a run.
"""

import importlib
from dataclasses import dataclass

VERL_VERSION = "0.9.1"


@dataclass(frozen=True)
class Name:
    """`module:name`, with the leading parameters it must have (None: not a function)."""

    module: str
    name: str
    parameters: tuple[str, ...] | None
    why: str


# Methods of PPOTrainerSync that Verl/trainer/ppo/ray_trainer_base.py overrides.
TRAINER_METHODS = (
    "_setup", "prepare_step", "_init_resource_pool_mgr", "_init_dataloader", "_fetch_one_gen_batch",
    "_balance_batch", "_compute_old_log_prob", "_compute_ref_log_prob",
    "_compute_advantage", "_update_actor", "_compute_metrics", "_validate", "_save_checkpoint", "_load_checkpoint",
    "on_train_begin", "on_train_end",
)  # fmt: skip

_TRAINER = "verl.trainer.ppo.v1.trainer_base"
RELIED_ON = (
    Name(_TRAINER, "PPOTrainer.fit", ("self", "agent_loop_manager"), "the loop that calls everything below"),
    Name(_TRAINER, "PPOTrainer._balance_batch", ("self", "batch", "metrics"), "first call after the rollout"),
    Name(_TRAINER, "calculate_workload", ("seqlen_list",), "turned into plain numbers meanwhile"),
    Name(_TRAINER, "PPOTrainer._compute_advantage", ("self", "batch", "metrics"), "our estimators go in here"),
    Name(_TRAINER, "PPOTrainer._compute_metrics", ("self", "batch", "metrics", "timing_raw", "global_steps", "epoch"),
         "the ledger goes in here"),
    Name(_TRAINER, "PPOTrainer._add_prompts_to_generate", ("self", "num_prompts"), "refills of dynamic sampling"),
    Name(_TRAINER, "PPOTrainer._write_generations", ("inputs", "outputs", "gts", "scores"), "trainer.validation_data_dir"),
    Name(_TRAINER, "PPOTrainer._maybe_log_val_generations", ("self", "inputs", "outputs", "scores"),
         "trainer.log_val_generations"),
    Name("verl.trainer.ppo.rollout_corr_helper", "compute_rollout_correction_and_add_to_batch",
         ("batch", "rollout_corr_config"), "rollout correction for our estimators"),
    Name("verl.utils.model", "get_generation_config", ("model",), "the tokens that end a response"),
    Name(_TRAINER, "PPOTrainer._fetch_one_gen_batch", ("self",), "random ids are replaced by ordered ones"),
    Name("verl.trainer.ppo.v1.agent_loop_tq", "AgentLoopWorkerTQ.__ray_metadata__", None, "the class below @ray.remote"),
    Name("verl.trainer.ppo.v1.agent_loop_tq", "AgentLoopManagerTQ", None, "subclassed: workers that seed each request"),
    Name("verl.trainer.ppo.v1.replay_buffer", "ReplayBuffer.sample",
         ("self", "global_steps", "partition_id", "batch_size"), "sorted here"),
    Name("transfer_queue", "kv_batch_put", ("keys", "partition_id", "fields", "tags"), "served in this process on a CPU"),
    Name("transfer_queue", "kv_batch_get", ("keys", "partition_id", "select_fields"), "served in this process on a CPU"),
    Name("transfer_queue", "kv_clear", ("keys", "partition_id"), "served in this process on a CPU"),
    Name("transfer_queue", "kv_list", ("partition_id",), "served in this process on a CPU"),
    Name("verl.utils.transferqueue_utils", "tqbridge", ("dispatch_mode",), "lets a call with a TensorDict through"),
    Name("verl.workers.rollout.base", "_ROLLOUT_REGISTRY", None, "where the weight sync of rollout.name=hf is found"),
    Name("verl.workers.rollout.replica", "RolloutReplicaRegistry.register", ("name", "loader"), "rollout.name=hf"),
    Name("verl.workers.rollout.replica", "RolloutReplica.launch_servers", ("self",), "starts the hf server"),
    Name("verl.workers.rollout.llm_server", "LLMServerManager._init_global_load_balancer", ("self",),
         "left out where the batched manager needs none"),
    Name("verl.workers.engine.base", "EngineRegistry.register", ("model_type", "backend", "device"), "fsdp2 on a CPU"),
    Name("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine._build_fsdp_module", ("self", "module"),
         "the pinned offload policy is left out"),
    Name("verl.workers.engine.fsdp.transformer_impl", "CPUOffloadPolicy", None, "the name that is replaced meanwhile"),
    Name("verl.workers.engine.fsdp.transformer_impl", "prepare_micro_batches", ("data", "dp_group"),
         "micro batches that keep a prompt's responses together"),
    Name("verl.workers.engine.fsdp.transformer_impl", "FSDPEngineWithLMHead.forward_step",
         ("self", "micro_batch", "loss_function", "forward_only"), "the shared-prefix pass goes in here"),
    Name("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine._gradient_sync_context", ("self", "is_last_micro_batch"),
         "one process reduces no gradient"),
    Name("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine.optimizer_step", ("self",), "gradients are handed over"),
    Name("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine.get_per_tensor_param", ("self",), "no copy of a whole shard"),
    Name("verl.workers.engine.fsdp.transformer_impl", "convert_weight_keys", ("state_dict", "model"), "as it names weights"),
    Name("verl.workers.engine.fsdp.transformer_impl", "unfuse_moe_params", None, "as it names weights"),
    Name("verl.workers.engine_workers", "ActorRolloutRefWorker.update_actor", ("self", "data"),
         "the update tells its own log-probabilities"),
    Name("verl.workers.engine_workers", "ActorRolloutRefWorker.compute_log_prob", ("self", "data"), "derived fields first"),
    Name("verl.workers.engine_workers", "ActorRolloutRefWorker.compute_ref_log_prob", ("self", "data"), "derived fields first"),
    Name("verl.utils.debug.metrics", "calculate_debug_metrics", ("data",), "the gap to the rollout, as verl computes it"),
    Name("verl.trainer.ppo.core_algos", "agg_loss", ("loss_mat", "loss_mask", "loss_agg_mode"), "the mean entropy"),
    Name(_TRAINER, "PPOTrainer._compute_old_log_prob", ("self", "batch", "metrics"), "left out with one update per round"),
    Name(_TRAINER, "PPOTrainer._compute_ref_log_prob", ("self", "batch", "metrics"), "done in the update's call then"),
    Name("verl.workers.utils.padding", "response_from_nested", ("tensor", "response_mask"), "reference log-probabilities"),
    Name(_TRAINER, "PPOTrainer._update_actor", ("self", "batch", "metrics"), "names of the update's own metrics"),
    Name("verl.workers.engine_workers", "ActorRolloutRefWorker.init_model", ("self",), "opens the process group first"),
    Name("verl.plugin.platform.platform_manager", "PlatformRegistry.register", ("platform",), "the CPU platform"),
    Name("verl.workers.utils.padding", "response_to_nested", ("tensor", "response_mask"), "advantages back to the queue"),
    Name("verl.trainer.ppo.utils", "create_rl_dataset", ("data_paths", "data_config", "tokenizer", "processor"),
         "evaluation sets"),
    Name("verl.utils.dataset.rl_dataset", "RLHFDataset._read_files_and_tokenize", ("self",), "reads past the datasets cache"),
    Name("verl.utils.dataset.rl_dataset", "RLHFDataset.maybe_filter_out_long_prompts", ("self", "dataframe"),
         "too long prompts are left out by verl"),
    Name("verl.trainer.constants_ppo", "get_ppo_ray_runtime_env", ("config",), "environment of the workers"),
    Name("verl.utils.config", "validate_config", ("config", "use_reference_policy", "use_critic"), "before Ray starts"),
)  # fmt: skip

# Where vLLM is installed: these modules import it. tests/vllm/test_vllm_arguments.py checks them.
_VLLM = "verl.workers.rollout.vllm_rollout"
RELIED_ON_WITH_VLLM = (
    Name(f"{_VLLM}.vllm_async_server", "vLLMHttpServer.launch_server", ("self",), "writes vLLM's arguments and parses them"),
    Name(f"{_VLLM}.vllm_async_server", "vLLMHttpServer.run_server", ("self", "args"), "gets what was parsed"),
    Name(f"{_VLLM}.vllm_async_server", "vLLMHttpServer._get_worker_extension_cls", ("self",), "ours on a CPU"),
    Name(f"{_VLLM}.vllm_async_server", "vLLMHttpServer._preprocess_engine_kwargs", ("self", "engine_kwargs"),
         "defaults on a CPU"),
    Name(f"{_VLLM}.vllm_async_server", "vLLMReplica.launch_servers", ("self",), "starts the class named in server_class"),
    Name(f"{_VLLM}.utils", "vLLMColocateWorkerExtension.__new__", ("cls",), "comes before the model: the repair goes in here"),
    Name("vllm.model_executor.layers.utils", "dispatch_cpu_unquantized_gemm", ("layer", "remove_weight"),
         "vLLM's, not verl's: replaced on a CPU, so that layers keep their Parameters"),
)  # fmt: skip


def resolve(entry: Name) -> object:
    """The object that an entry names.

    Raises:
        ImportError, AttributeError: if this verl does not have it.
    """
    found: object = importlib.import_module(entry.module)
    for part in entry.name.split("."):
        if part == "__ray_metadata__":
            return found.__ray_metadata__.modified_class
        found = getattr(found, part)
    return found
