"""Bandit reinforcement fine-tuning: what differs from verl 0.9.1, and nothing else."""

from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]
RESULT_DIR = REPO_ROOT / "Running-Results" / "result"
FIGURE_DIR = REPO_ROOT / "Running-Results" / "Figure"
