"""Rewards: what a response to a question of ours is worth.

Start at `score` (one response, four scores); `gsm8k`, `hendrycks`, `arithmetic` and `last_number` hold the rules of one data
set each, `verl_math` is verl's own rule for MATH, `guard` keeps math-verify from hurting the run, `manager` is what verl calls.
Nothing is imported here: the math-verify child is a process of its own (`child`) and must start without torch.
"""
