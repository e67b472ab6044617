"""What does a larger batch add, at 8 rollouts per query? The arms are compared with batch 32."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="batch",
    title="Batch at 8 rollouts",
    arms=("grpo_0032_8", "grpo_0064_8", "grpo_0128_8"),
    base_line="grpo_0032_8",
    axes=("steps", "queries"),
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
