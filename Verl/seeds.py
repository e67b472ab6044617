"""One seed for everything.

A run has one `seed`. Whatever draws random numbers takes them from a stream of its own, named by what it is for, so that
a stream does not move when another is used more or less often: two arms with one seed see the same queries in the same
order, and the same random numbers for the same (step, query, rollout), whatever else they do.
"""

import hashlib


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream `names` of the run's `seed`: the same on every machine and in every process.

    >>> derive(0, "rollout", 3, 17, 0) == derive(0, "rollout", 3, 17, 0) != derive(1, "rollout", 3, 17, 0)
    True
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def rollout_seed(seed: int, step: int, data_source: str, index: int, rollout: int, validate: bool) -> int:
    """The seed of one response: (step, query, rollout number), and whether it is for training or evaluation.

    Rollouts beyond the trained ones (onerpo's extra ones) only have larger numbers, so that the trained responses of an
    arm with extra rollouts are those of the arm without.
    """
    return derive(seed, "evaluate" if validate else "rollout", step, data_source, index, rollout)
