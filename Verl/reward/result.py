"""The scores of one response."""

from typing import NamedTuple


class Scores(NamedTuple):
    """Three scores of one response, and whether scoring itself went wrong; each is 0.0 or 1.0.

    strict   the published rule: right answer in the demanded format.
    flexible the answer is right, however it is written. Never below strict.
    format   the demanded format is there, right or wrong. Never below strict.
    failure  a scorer crashed, ran out of memory or raised: the scores it owed are 0.0.
    timeout  a scorer was stopped at its time limit: the scores it owed are 0.0.
    """

    strict: float
    flexible: float
    format: float
    failure: float = 0.0
    timeout: float = 0.0


def scores(strict: bool, flexible: bool, well_formed: bool) -> Scores:
    """Booleans to `Scores`. A strict answer is also flexible and well formed: the scores are nested by definition."""
    return Scores(float(strict), float(strict or flexible), float(strict or well_formed))
