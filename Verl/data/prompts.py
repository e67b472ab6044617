r"""The prompts of the study, written once: one user turn, the question with an instruction after it.

Training and evaluation read the finished prompt from the parquet, so nothing else may build one. The wording is
that of the published package (verl's `examples/data_preprocess/{gsm8k,math_dataset}.py`); the question itself is
not touched, not even a newline at its end, so that our prompts are the published ones byte for byte.
"""

GSM8K_INSTRUCTION = ' Let\'s think step by step and output the final answer after "####".'
MATH_INSTRUCTION = " Let's think step by step and output the final answer within \\boxed{}."


def gsm8k_prompt(question: str) -> str:
    """What the model is shown for a GSM8K question."""
    return question + GSM8K_INSTRUCTION


def math_prompt(question: str) -> str:
    """What the model is shown for a question of MATH or MATH-500."""
    return question + MATH_INSTRUCTION
