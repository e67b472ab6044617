"""Can replayed rewards stand in for rollouts? 256 fresh rollouts a step, a window of 8 rewards per query; compared with
GRPO 32 x 8, the best trade-off, which spends the same rollouts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="replay",
    title="Replay of rewards, 256 rollouts a step",
    arms=("grpo_0032_8", "asyttgrpo_0064_4_8", "asyttgrpo_0128_2_8", "asyttgrpo_0256_1_8"),
    base_line="grpo_0032_8",
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
