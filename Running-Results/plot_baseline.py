"""Does the base line alone improve? One rollout per query, the 0/1 reward itself as the signal, 32 queries a step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="baseline",
    title="The base line",
    arms=("grpo_0032_1",),
    from_start=True,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
