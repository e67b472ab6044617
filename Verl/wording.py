"""Words that several packages say alike: what a Pass@1 is, and how long something takes.

Whoever reads "Pass@1 0.31" must see whether it is one sample at temperature 1.0 (the published metric), the mean of
eight, or greedy decoding: the three differ by more than most arms do.
"""

from __future__ import annotations


def pass_at_1(samples: int, temperature: float, top_p: float = 1.0, top_k: int = -1) -> str:
    """The words for Pass@1 from so many samples per question; `top_p` and `top_k` show where they cut something off.

    >>> pass_at_1(1, 1.0), pass_at_1(8, 0.6, top_p=0.95)
    ('Pass@1, one sample at temperature 1.0', 'Pass@1, the mean of 8 samples at temperature 0.6, top_p 0.95')
    """
    if temperature == 0:
        return "Pass@1, greedy (temperature 0)"
    count = "one sample" if samples == 1 else f"the mean of {samples} samples"
    cuts = (f", top_p {top_p:g}" if top_p < 1 else "") + (f", top_k {top_k}" if top_k > 0 else "")
    return f"Pass@1, {count} at temperature {float(temperature)}{cuts}"


def duration(seconds: float) -> str:
    """5 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
