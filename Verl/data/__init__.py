"""Data sets as the study uses them: one row schema, one prompt per set, splits that do not leak.

Start at `schema` (rows, files, checks); `gsm8k`, `hendrycks_math` and `arithmetic` fill it.
"""
