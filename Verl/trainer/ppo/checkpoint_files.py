"""Which checkpoints a folder holds; without torch, for the checks before a run."""

from pathlib import Path

STATE = "bandit_state.json"  # written last into a checkpoint


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a folder, oldest first."""
    found = [path.name.removeprefix("global_step_") for path in folder.glob("global_step_*") if (path / STATE).is_file()]
    return sorted(int(step) for step in found if step.isdigit())
