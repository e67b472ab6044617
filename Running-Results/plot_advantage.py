"""What does an advantage add, alone? One-RPO trains on one rollout a query like the base line, and takes mean and
standard deviation from 7 extra rollouts; GRPO with 8 rollouts trains on all 8."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="advantage",
    title="Advantage only",
    arms=("grpo_0032_1", "onerpo_0032_1_7", "grpo_0032_8"),
    axes=("steps", "tokens"),
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
