# shellcheck shell=bash
# tiny: a Qwen2 of half a million parameters with a 31-character vocabulary, built and warm-started here in about two minutes.
# It answers sums at once or writes the steps first; reinforcement finds out which is better.
# Its learning rate, its number of steps and its check points are its own, not the study's: it is a thousand times smaller.
arguments+=(
    actor_rollout_ref.model.path=.cache/models/tiny
    actor_rollout_ref.actor.optim.lr=1e-4
    trainer.total_training_steps=100
    trainer.test_freq=20
    trainer.save_freq=25
    evaluation.val_freq=10
    evaluation.final_samples=8   # answers per test question at both ends; design.py plan says what they cost
)

prepare_model() {
    "$python" -m Verl.base_models.tiny --out .cache/models/tiny
}
