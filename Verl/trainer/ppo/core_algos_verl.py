"""verl 0.9.1's own estimators (verl/trainer/ppo/core_algos.py), which main_ppo_grpo takes: verl's code computes them."""

from Verl.trainer.ppo.estimators import Estimator

_NO_PROBABILITIES = "verl's V1 trainer 0.9.1 does not compute the sum of squared probabilities that it needs"

ENTRIES = (
    Estimator("grpo_passk", label="GRPO pass@k", divides_by_std=True,
              needs_several="it compares a query's best response with its second best"),
    Estimator("grpo_vectorized", label="verl's vectorized GRPO"),
    Estimator("gpg", label="GPG"),
    Estimator("opo", label="OPO"),
    Estimator("reinforce_plus_plus", label="REINFORCE++", discounts=True),
    Estimator("reinforce_plus_plus_baseline", label="REINFORCE++ with baseline"),
    Estimator("rloo", label="RLOO", signal="the reward minus the mean of its query's other responses as the signal"),
    Estimator("rloo_vectorized", label="verl's vectorized RLOO",
              needs_several="verl's formula gives every response the advantage 0"),
    Estimator("gae", discounts=True, refused="it needs a critic, which this study does not train"),
    Estimator("remax", refused="verl's V1 trainer 0.9.1 draws no greedy baseline for it"),
    Estimator("gdpo", refused="verl's V1 trainer 0.9.1 does not hand it the reward components"),
    Estimator("optimal_token_baseline", refused=_NO_PROBABILITIES),
    Estimator("tir_optimal_token_baseline", refused=_NO_PROBABILITIES),
)  # fmt: skip
