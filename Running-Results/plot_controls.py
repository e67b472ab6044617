"""Would we see a gain where there is none? Arms named *_control_*: random, shuffled or format-only reward, or
learning rate 0; each is compared with GRPO 32 x 8 and with its own start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="controls",
    title="Negative controls",
    arms=("grpo_0032_1", "grpo_0032_8", "*_control_*"),
    base_line="grpo_0032_8",
    from_start=True,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
