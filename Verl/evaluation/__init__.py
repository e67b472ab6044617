"""Evaluation of one model on one prepared set; the command is `python -m Verl.trainer.main_eval`.

Start at `run.evaluate`. `settings` are checked before anything is loaded, `questions` reads the set, `backends`
generates, `store` keeps what is done across interruptions, `metrics` counts, `compare` tests two models on the same
questions, `report` writes and shows.
"""
