"""What is measured: a model, queries of one exact length, a reward that varies. The same for every contender."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "speed"
REWARD = '''"""Half of all texts earn 1, whatever the model: a checksum's parity."""
import zlib


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(zlib.crc32(solution_str.encode()) % 2)
'''


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Args:
        name: of the row.
        model: `smollm135m`, or the shape of a byte-level Qwen2 as "layers x width x intermediate".
        queries: a step (B).
        rollouts: per query (n).
        prompt: tokens of every prompt under the model's chat template (P).
        response: tokens of every response; the end token does not end it (T).
        micro: sequences per micro batch in the floor and in TRL (32 was best for the small model: a micro batch of 256
            takes 1.7 times as long).
        script: whose hyperparameters our run takes.
    """

    name: str
    model: str = "4x256x704"
    queries: int = 32
    rollouts: int = 8
    prompt: int = 128
    response: int = 48
    micro: int = 32
    script: str = "run_grpo_0032_8_tiny_arith.sh"

    @property
    def sequences(self) -> int:
        return self.queries * self.rollouts

    @property
    def response_tokens(self) -> int:
        return self.sequences * self.response

    def for_trl(self) -> Work:
        """The same number of sequences, two to a query where we take one: TRL refuses n = 1."""
        if self.rollouts > 1:
            return self
        return replace(self, queries=max(1, self.queries // 2), rollouts=2)

    def tiny(self) -> Work:
        """The same batch through a model that costs next to nothing: what is left is not arithmetic."""
        return replace(self, name=f"{self.name}_overhead", model="1x32x32")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        return cls(**json.loads(text))


_SMOL = Work("smol_n4", model="smollm135m", queries=8, rollouts=4, prompt=64, micro=8,
             script="run_grpo_0032_8_smollm135m_gsm.sh")  # fmt: skip
WORKS = {
    work.name: work
    for work in (
        Work("small_n1", rollouts=1),
        Work("small_n8"),
        replace(_SMOL, name="smol_n1", rollouts=1),
        _SMOL,
    )
}


def prepare(work: Work, rows: int) -> tuple[Path, Path, Path]:
    """Model folder, data folder (train, validation, test) with at least `rows` training queries, reward file.

    Built once under .cache/speed; the SmolLM2 folder comes from `Verl/trainer/config/model/smollm135m.yaml`.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "reward.py").write_text(REWARD)
    model = ROOT / ".cache" / "models" / work.model if work.model == "smollm135m" else CACHE / f"model_{work.model}"
    if not (model / "config.json").is_file():
        if work.model == "smollm135m":
            raise SystemExit(
                f"{model} is not there: run `bash Running-Bash/{work.script} trainer.total_training_steps=1`"
            )
        build_model(model, work.model)
    data = CACHE / f"data_{'smol' if work.model == 'smollm135m' else 'bytes'}_{work.prompt}_{rows}"
    if not (data / "manifest.json").is_file():
        build_data(data, model, work.prompt, rows)
    return model, data, CACHE / "reward.py"


def build_model(folder: Path, shape: str) -> None:
    """A Qwen2 with random weights and a byte-level tokenizer: 262 tokens, so that the logits cost nothing."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    layers, width, intermediate = map(int, shape.split("x"))
    tokenizer = byte_tokenizer()
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    head = min(64, width // 2)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=width // head, num_key_value_heads=width // head // 2, max_position_embeddings=2048,
            tie_word_embeddings=True, dtype=torch.float32, **tokens,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer():
    """One token per byte, beside the special tokens and the chat template of the tiny base model."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    from Verl.base_models import tokenizer as tiny

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate((*tiny.SPECIAL_TOKENS, *letters))}, merges=[],
        pad_token=tiny.PAD, eos_token=tiny.EOS, unk_token=tiny.UNK, padding_side="left", model_max_length=2048,
        extra_special_tokens=[tiny.USER, tiny.ASSISTANT, tiny.SYSTEM], chat_template=tiny.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def prompt_ids(tokenizer, text: str) -> list[int]:
    """The prompt as every contender sees it."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def exact_prompts(tokenizer, length: int, count: int) -> list[str]:
    """`count` different texts whose chat prompts have `length` tokens each.

    Random words of one token where the vocabulary has them, else letters. The first word starts the text and may come out
    longer, so that the number of words is found by trying.
    """
    bare = len(prompt_ids(tokenizer, "a"))
    words = (
        "cat",
        "dog",
        "sun",
        "map",
        "red",
        "box",
        "ten",
        "key",
        "ice",
        "oil",
        "bed",
        "car",
        "day",
        "fox",
        "hat",
        "pen",
    )
    units = [f" {word}" for word in words if len(prompt_ids(tokenizer, f"a {word}")) == bare + 1] or list(
        "abcdefghijklmnop"
    )
    if length <= bare + 3:
        raise SystemExit(f"a prompt of {length} tokens is too short: the chat template alone takes {bare - 1}")
    generator, found = random.Random(0), set()
    while len(found) < count:
        text = "a" + "".join(generator.choice(units) for _ in range(length - bare))
        if len(prompt_ids(tokenizer, text)) == length:
            found.add(text)
    return sorted(found)


def build_data(folder: Path, model: Path, length: int, rows: int) -> None:
    """A set in verl's schema."""
    from transformers import AutoTokenizer

    from Verl.data.schema import make_row, write_split_set

    texts = exact_prompts(AutoTokenizer.from_pretrained(model), length, rows + 16)
    parts = {"train": texts[:rows], "validation": texts[rows : rows + 8], "test": texts[rows + 8 :]}
    write_split_set(
        folder,
        {
            split: [
                make_row(data_source="speed", question=text, prompt=text, ability="none", ground_truth="0", split=split,
                         index=index, answer="0")
                for index, text in enumerate(part)
            ]
            for split, part in parts.items()
        },
        source="generated for the speed benchmark",
        settings={"prompt": length, "rows": rows},
    )  # fmt: skip
