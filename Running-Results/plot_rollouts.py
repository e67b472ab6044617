"""What do more rollouts per query add, at 32 queries a step?"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="rollouts",
    title="Rollouts at batch 32",
    arms=("grpo_0032_1", "grpo_0032_8", "grpo_0032_16", "grpo_0032_32", "grpo_0032_64"),
    axes=("steps", "tokens"),
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
