"""Bandit reinforcement fine-tuning: what differs from verl 0.9.1, and nothing else."""

from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]
