"""GRPO and the base line (n = 1); verl's own estimators by algorithm.adv_estimator.

    python -m Verl.trainer.main_ppo_grpo data.train_files=... actor_rollout_ref.model.path=... [key=value ...]

The scripts in Running-Bash call this with the study's hyperparameters.
"""

from Verl.trainer.launch import main

if __name__ == "__main__":
    main("grpo")
