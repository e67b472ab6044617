"""A character-level tokenizer for the tiny base model.

Why: with a 49k vocabulary most of a CPU step goes into the logits; with 31 tokens they cost nothing. One character is
one token, so `7+5-3=` is six tokens, and a chat prompt adds two (`<|user|>` and `<|assistant|>`).

It is a `Qwen2Tokenizer` (a `PreTrainedTokenizerFast`: byte-level BPE) without any merge, because `AutoTokenizer` of
transformers 5 gives a model of type qwen2 that class whatever tokenizer was saved beside it (`tokenization_auto.py`,
`MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`). A tokenizer of another kind would come back as something else.
"""

from __future__ import annotations

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

# The end token has Qwen's name: verl 0.9.1 looks it up by that name in every model of type qwen2
# (verl/utils/tokenizer/continuous_token.py), as it does a one-token newline.
PAD, EOS, UNK, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|im_end|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (PAD, EOS, UNK, USER, ASSISTANT, SYSTEM)

# Digits, the operators of the task, `;` between steps and `#` before the answer; the rest lets other arithmetic tasks
# of reasoning-gym be written without a new vocabulary. A character that is not here is dropped, as BPE without an
# unknown token does: this model is for arithmetic only.
CHARACTERS = "0123456789+-*/()=;#.,: \n?"

# A user turn has no end mark: the next role token ends it. An assistant turn ends with eos, as it does in training.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- '" + EOS + "' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + ASSISTANT + "' -}}{%- endif -%}"
)


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer; `max_length` is the model's context length in tokens.

    There is no bos token, and pad differs from eos: a trainer that masks padding must not mask the end of a response.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ((characters, _),) = byte_level.pre_tokenize_str(CHARACTERS)  # byte-level BPE writes a blank as `Ġ`
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate((*SPECIAL_TOKENS, *characters))},
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
