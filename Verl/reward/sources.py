"""The `data_source` strings: the name a row carries, by which the scorer picks its rule.

Written here once. `Verl/reward/score.py` must accept every string of `KNOWN_DATA_SOURCES`; a row with
another string is refused before Ray starts (`schema.check_parquet`), because verl turns a scorer's
exception into reward 0 and the run would learn nothing without saying so.
The first three are the Hub names, and also the strings verl's own `default_compute_score` knows.
"""

GSM8K = "openai/gsm8k"
MATH = "DigitalLearningGmbH/MATH-lighteval"
MATH_500 = "HuggingFaceH4/MATH-500"
CHAIN_SUM = "reasoning_gym/chain_sum"
LARGEST = "bandit/largest"

KNOWN_DATA_SOURCES: tuple[str, ...] = (GSM8K, MATH, MATH_500, CHAIN_SUM, LARGEST)
