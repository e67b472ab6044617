"""A checkpoint that verl's own manager wrote, read back without verl: the same weights to the bit, the same logits."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from Verl.adapter.load_checkpoint import export_checkpoint, find_actor, load_checkpoint, load_state_dict
from Verl.errors import UserError
from Verl.evaluation.models import find_model, load_tokenizer

pytestmark = pytest.mark.slow  # importing verl, in processes of their own

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])

# Each process of a world of the given size: the same random model, sharded by FSDP2 as the trainer's engine does, saved
# by verl. Rank 0 also keeps the logits and the weights of the model before it was sharded.
_WRITE = """
import os, sys
from datetime import timedelta
import torch, torch.distributed as dist
from omegaconf import OmegaConf
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from Verl.base_models.tokenizer import build_tokenizer

folder, rank, world, tied = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "tied"
store = dist.FileStore(f"{folder}/rendezvous", world)
dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=300))
torch.manual_seed(0)
tokenizer = build_tokenizer(64)
model = Qwen2ForCausalLM(Qwen2Config(
    vocab_size=len(tokenizer), hidden_size=24, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=tied, eos_token_id=tokenizer.eos_token_id,
)).eval()
if rank == 0:
    with torch.no_grad():
        logits = model(torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])).logits
    torch.save({"logits": logits, "state": model.state_dict()}, f"{folder}/expected.pt")
mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
contents = OmegaConf.create({"save_contents": ["model"], "load_contents": ["model"]})
manager = FSDPCheckpointManager(model, processing_class=tokenizer, checkpoint_config=contents)
manager.save_checkpoint(f"{folder}/global_step_3/actor", global_step=3)
dist.destroy_process_group()
"""


def write(folder, world, tied):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": "0", "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(folder), str(rank), str(world), tied],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(world)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return folder / "global_step_3"


@pytest.fixture(scope="module", params=[(1, "tied"), (2, "untied")], ids=["one process, tied", "two processes, untied"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return write(folder, *request.param), torch.load(folder / "expected.pt", weights_only=True)


def logits_of(model):
    with torch.no_grad():
        return model(IDS).logits


def test_weights_are_the_same_to_the_bit_and_so_are_the_logits(written):
    folder, expected = written
    state = load_state_dict(folder / "actor")
    assert set(state) == set(expected["state"])
    assert all(torch.equal(state[name], weight) for name, weight in expected["state"].items())
    for place in (folder, folder / "actor"):
        assert torch.equal(logits_of(load_checkpoint(place)), expected["logits"])


def test_type_is_kept_unless_another_is_requested(written):
    folder, _ = written
    assert load_checkpoint(folder).dtype == torch.float32
    assert load_checkpoint(folder, torch.bfloat16).dtype == torch.bfloat16


def test_exported_folder_is_a_model_like_any_other(written, tmp_path):
    folder, expected = written
    export_checkpoint(folder, tmp_path / "model")
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), expected["logits"])
    assert load_tokenizer(find_model(str(tmp_path / "model"))).chat_template


def test_checkpoint_is_evaluated_as_a_model(written, tmp_path):
    from Verl.data.arithmetic import prepare
    from Verl.trainer.main_eval import main

    prepare(tmp_path / "set", sizes={"test": 4, "train": 2})
    arguments = ["--model", written[0], "--data", tmp_path / "set" / "test.parquet", "--out", tmp_path / "out"]
    assert main([*map(str, arguments), "--max-response-length", "4", "--device", "cpu"]) == 0


@pytest.fixture
def broken(written, tmp_path):
    """A copy that may be damaged: its actor folder."""
    copy = tmp_path / "global_step_3"
    for path in written[0].rglob("*"):
        if path.is_file():
            place = copy / path.relative_to(written[0])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return copy / "actor"


def weights(actor):
    return sorted(actor.glob("model_world_size_*.pt"))


def test_missing_rank_is_named(broken):
    files = weights(broken)
    if len(files) == 1:
        files[0].rename(broken / "model_world_size_2_rank_0.pt")
    else:
        files[1].unlink()
    with pytest.raises(UserError, match=r"rank 1 of 2 are missing"):
        load_checkpoint(broken)


def test_cut_file_is_named(broken):
    path = weights(broken)[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="can't be read as weights"):
        load_checkpoint(broken)


def test_weight_that_is_missing_is_not_made_up(broken):
    for path in weights(broken):
        state = torch.load(path, weights_only=True)
        del state["model.norm.weight"]
        torch.save(state, path)
    with pytest.raises(UserError, match=r"missing_keys: model\.norm\.weight"):
        load_checkpoint(broken)


def test_code_in_a_file_does_not_run(broken, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"model.norm.weight": Attack()}, weights(broken)[0])
    with pytest.raises(UserError):
        load_checkpoint(broken)
    assert not (tmp_path / "attacked").exists()


def test_other_folders_are_no_checkpoints(tmp_path):
    assert find_actor(tmp_path) is None
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_checkpoint(tmp_path)
