"""The trainer's weights in the rollout server: all of them, tied ones once, and none that it does not know."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from Verl.adapter.hf.first_answers import FirstAnswers
from Verl.adapter.hf.rollout import HFServer, HFWeightSync

SMALL = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1}  # fmt: skip


def model(seed: int, tied: bool) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=tied))


def sent(weights) -> dict:
    """What the training worker's side sends of named weights."""
    found = {}

    class Remote:
        async def remote(self, arrays, global_steps):
            found.update(arrays)

    sync = HFWeightSync.__new__(HFWeightSync)
    sync._server = SimpleNamespace(load_weights=Remote())
    asyncio.run(sync.update_weights(iter(weights), global_steps=3))
    return found


def server(network: Qwen2ForCausalLM) -> HFServer:
    made = HFServer.__new__(HFServer)
    made.decoder, made._first_answers = SimpleNamespace(model=network), FirstAnswers()
    return made


@pytest.mark.parametrize("tied", [True, False])
def test_the_server_has_the_trainers_weights(tied):
    trainer, rollout = model(0, tied), model(1, tied)
    arrays = sent(trainer.state_dict().items())
    assert ("lm_head.weight" in arrays) is not tied
    server(rollout)._copy_weights(arrays)
    for name, value in trainer.state_dict().items():
        assert torch.equal(rollout.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_that_are_made_one_by_one_are_all_sent(dtype):
    """A weight that was put together for sending may be freed before the next is made, in the same memory."""
    network = model(0, True)
    arrays = sent((name, value.clone().to(dtype)) for name, value in network.state_dict().items())
    assert list(arrays) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(torch.from_numpy(arrays[name]), value.to(dtype).float())


@pytest.mark.parametrize(("change", "message"), [("missing", "has not sent"), ("unknown", "does not have")])
def test_other_weights_are_refused_and_nothing_is_written(change, message):
    arrays, rollout = sent(model(0, False).state_dict().items()), model(1, False)
    before = {name: value.clone() for name, value in rollout.state_dict().items()}
    if change == "missing":
        del arrays["lm_head.weight"]
    else:
        arrays["other.weight"] = arrays["lm_head.weight"]
    with pytest.raises(RuntimeError, match=message):
        server(rollout)._copy_weights(arrays)
    assert all(torch.equal(rollout.state_dict()[name], value) for name, value in before.items())
