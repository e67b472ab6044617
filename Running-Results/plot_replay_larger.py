"""What does a larger batch add to replay? One rollout per query, a window of 8 rewards; compared with batch 256."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import Question, main

QUESTION = Question(
    name="replay_larger",
    title="Replay of rewards, larger batch",
    arms=("asyttgrpo_0256_1_8", "asyttgrpo_0512_1_8", "asyttgrpo_1024_1_8", "asyttgrpo_2048_1_8"),
    base_line="asyttgrpo_0256_1_8",
    axes=("steps", "queries"),
)

if __name__ == "__main__":
    sys.exit(main(QUESTION, __doc__))
