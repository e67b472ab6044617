"""Reading runs, statistics, figures and verdicts. Imports neither torch nor verl, so that it starts fast.

`from Verl.analysis import load_study` gives a study as pandas frames (study.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Verl.analysis.study import StudyResults, load_study

__all__ = ["StudyResults", "load_study"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # late: pandas takes half a second
        from Verl.analysis import study

        return getattr(study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
