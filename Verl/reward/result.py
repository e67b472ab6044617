"""The scores of one response."""

from typing import NamedTuple


class Scores(NamedTuple):
    """Four scores of one response, and whether scoring itself went wrong; each is 0.0 or 1.0.

    strict   the published rule: right answer in the demanded format.
    lenient  strict, or right under the wider spellings of MATH (`Verl.reward.hendrycks`); elsewhere the same as strict.
    flexible the answer is right, however it is written. Never below lenient, so never below strict.
    format   the demanded format is there, right or wrong. Never below strict.
    failure  a scorer crashed, ran out of memory or raised: the scores it owed are 0.0.
    timeout  a scorer was stopped at its time limit: the scores it owed are 0.0.
    """

    strict: float
    flexible: float
    format: float
    failure: float = 0.0
    timeout: float = 0.0
    lenient: float = 0.0


def scores(strict: bool, flexible: bool, well_formed: bool, lenient: bool = False) -> Scores:
    """Booleans to `Scores`. What is right by a narrower rule is right by a wider one: strict <= lenient <= flexible, and
    strict <= format, by definition."""
    lenient = strict or lenient
    return Scores(float(strict), float(lenient or flexible), float(strict or well_formed), lenient=float(lenient))
