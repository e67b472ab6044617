"""Many queries or many rollouts? Batch x rollouts = 256 throughout; the arms are compared with 32 x 8."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="tradeoff",
    title="Batch \N{MULTIPLICATION SIGN} rollouts = 256",
    arms=(
        "grpo_0001_256",
        "grpo_0002_128",
        "grpo_0004_64",
        "grpo_0008_32",
        "grpo_0016_16",
        "grpo_0032_8",
        "grpo_0064_4",
        "grpo_0128_2",
        "grpo_0256_1",
    ),
    base_line="grpo_0032_8",
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
