"""Our step against the barest loop, against plain Hugging Face and against TRL, at equal work.

    python -m tests.benchmarks.speed run --row small_n8 [--before <commit>] [--trl <python>] [--minutes 10]
    python -m tests.benchmarks.speed table
    python -m tests.benchmarks.speed_scaling

`work` says what is measured and builds model and data; `bare`, `loop` and `limits` are the floor, `ours` and `peers` the
others, `driver` runs them in turn and `table` prints what they left.
"""
