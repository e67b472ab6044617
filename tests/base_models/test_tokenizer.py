"""The character tokenizer and the demonstrations it has to carry."""

import itertools

import pytest
from transformers import AutoTokenizer

from Verl.base_models import demonstrations, tiny, tiny_build, tiny_recipe
from Verl.base_models.tokenizer import CHARACTERS, build_tokenizer
from Verl.base_models.warm_start import prompt_ids
from Verl.data.arithmetic import ArithmeticSum, draw_splits
from Verl.reward import arithmetic


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(128)


@pytest.fixture(scope="module")
def shown():
    return list(itertools.islice(demonstrations.demonstrations(0, 0.3), 5_000))


def test_pad_and_eos_differ_and_there_is_no_bos(tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token_id is None
    # verl 0.9.1 looks these two up in every model of type qwen2 (verl/utils/tokenizer/continuous_token.py).
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert len(tokenizer.encode("\n", add_special_tokens=False)) == 1
    assert len(tokenizer) <= 40


def test_every_question_and_demonstration_comes_back(tokenizer, shown):
    questions = [q.text for questions in draw_splits(0).values() for q in questions]
    for text in [*questions, *(one.response for one in shown)]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == len(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        ended = [*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
        assert tokenizer.decode(ended, skip_special_tokens=True) == text


def test_lengths_that_runs_rely_on(tokenizer, shown):
    longest = max(len(prompt_ids(tokenizer, one.question)) for one in shown)
    assert longest == 10 <= tiny_recipe.MAX_PROMPT_TOKENS
    worst = demonstrations.step_by_step(ArithmeticSum("0-9-9-9=", "-27", 4))
    assert worst == "0-9=-9;-9-9=-18;-18-9=-27;#-27"
    assert max(len(one.response) for one in shown) <= len(worst)
    assert len(worst) + 1 <= tiny_recipe.MAX_RESPONSE_TOKENS


def test_chat_template_as_verl_uses_it(tokenizer):
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "7+5-3="}], add_generation_prompt=True)
    assert tokenizer.decode(prompt["input_ids"]) == "<|user|>7+5-3=<|assistant|>"
    # verl finds the system prompt by comparing one empty user turn with two: here there is none.
    one, two = (
        tokenizer.apply_chat_template([{"role": "user", "content": ""}] * turns, return_dict=False) for turns in (1, 2)
    )
    assert (len(one), len(two)) == (1, 2)
    chat = [{"role": "user", "content": "1+2+3="}, {"role": "assistant", "content": "#6"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|user|>1+2+3=<|assistant|>#6<|im_end|>"


@pytest.mark.parametrize("with_model", [False, True])
def test_saved_and_loaded_by_auto_tokenizer(tokenizer, tmp_path, with_model):
    """Beside a qwen2 config AutoTokenizer builds its own class from the vocabulary: it must not come back changed."""
    tokenizer.save_pretrained(tmp_path)
    if with_model:
        tiny_build.new_model(tiny.Recipe(), tokenizer).config.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(tokenizer) == 31
    for text in ("7+5=12;12-3=9;#9", CHARACTERS, " 1  2 \n\n?", "<|user|>1<|assistant|>#1<|im_end|>", "1 apple é 2"):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert loaded.decode(loaded.encode(CHARACTERS)) == CHARACTERS
    assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert loaded.chat_template == tokenizer.chat_template


def test_demonstrations_are_right_and_mixed(shown):
    """By hand: 7+5 is 12, 12-3 is 9."""
    assert demonstrations.step_by_step(ArithmeticSum("7+5-3=", "9", 3)) == "7+5=12;12-3=9;#9"
    assert demonstrations.direct(ArithmeticSum("7+5-3=", "9", 3)) == "#9"
    for one in shown[:500]:
        truth = str(eval(one.question.removesuffix("=")))
        assert arithmetic.score(one.response, truth).strict == 1.0
        for step in one.response.split(";")[:-1]:
            left, right = step.split("=")
            assert eval(left) == int(right)
    share = sum("=" in one.response for one in shown) / len(shown)
    assert share == pytest.approx(0.3, abs=0.03)


def test_a_wrong_answer_is_not_demonstrated():
    with pytest.raises(ValueError, match="is 9, but its answer is given as 8"):
        demonstrations.step_by_step(ArithmeticSum("7+5-3=", "8", 3))


def test_step_share_is_checked():
    with pytest.raises(ValueError, match="step_share"):
        next(demonstrations.demonstrations(0, 1.5))
