"""Statistics of a study: which arms differ from the reference, and what it takes to see it. Needs numpy and scipy alone.

Start at ``compare.compare_with``; docs/statistics.md has the model in words. ``data`` reduces scores to paired
differences with known variances, ``model`` estimates the seeds' noise of all arms together, ``joint`` turns both into
p-values and intervals, ``planning`` says what a study will see and where its next hour is best spent, ``sequential``
adds seeds until it is decided, ``crossed`` tells main effects from interactions where factors are crossed.
"""

VERDICTS = ("better", "worse", "equivalent", "undecided")
