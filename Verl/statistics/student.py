"""Student's t distribution by the incomplete beta function (NIST DLMF 8.17): I_{t^2/(df+t^2)}(1/2, df/2) = P(|T| <= |t|).

scipy's own `stdtr` and `stdtrit` agree with it to ten digits only, and its `nctdtr` is NaN for many noncentral t (scipy 1.16).
scipy.special is imported late: it takes a quarter of a second, which a figure without a test need not wait.
"""

from __future__ import annotations

import math
from functools import lru_cache


def t_two_sided_p(t: float, df: float) -> float:
    """P(|T| >= |t|) for Student's t with ``df`` > 0 degrees of freedom (not only whole)."""
    from scipy.special import betainc, betaincc

    if not df > 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    if math.isnan(t):
        raise ValueError("t is NaN")
    if t * t > df:  # either form is exact only while its argument is not close to 1
        return float(betainc(df / 2.0, 0.5, df / (df + t * t)))
    return float(betaincc(0.5, df / 2.0, t * t / (df + t * t)))


@lru_cache(maxsize=4096)  # a figure asks for the same few values a thousand times
def t_critical(confidence: float, df: float) -> float:
    """The t with P(|T| <= t) = ``confidence``; t_critical(0.95, 2) = 4.3027."""
    from scipy.special import betaincinv

    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    share = betaincinv(0.5, df / 2.0, confidence)
    if share < 0.5:
        return math.sqrt(df * share / (1.0 - share))
    rest = betaincinv(df / 2.0, 0.5, 1.0 - confidence)
    return math.sqrt(df * (1.0 - rest) / rest)
