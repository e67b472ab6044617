"""Checks of the policy loss: settings that the loss of this run can't read, and settings that don't fit together.

Facts of verl 0.9.1's losses (verl/trainer/ppo/core_algos.py). At ratio 1, which is where every round's only update is, the
gradient of `vanilla`, `gspo`, `cispo`, `dppo_tv`, `dppo_kl`, `gpg`, `dro` and `kl_cov` is -A grad log pi, to the bit:
clipping, the sequence's ratio and penalties on |log ratio| have no slope there. What is left of `sapo` is that it always
averages per response, and of `geo_mean` that it averages per response within each micro batch; `clip_cov` leaves tokens of
high covariance out whatever the ratio. tests/trainer/test_policy_losses.py takes the gradients.
"""

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.ppo.conditions import RATIO_MOVES, corrects_rollouts, loss_is, masking

ACTOR = "actor_rollout_ref.actor"
CORRECTION = "algorithm.rollout_correction"

LOSS_MODES = ("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "dro", "cispo")
SAME_AT_RATIO_1 = ("dppo_tv", "dppo_kl", "gspo", "gpg", "kl_cov", "dro", "cispo")
_CLIPPED = ("vanilla", "gspo", "geo_mean", "cispo", "clip_cov", "dppo_tv", "dppo_kl")

# key below actor_rollout_ref.actor: (verl's default, the losses that read it, whether they do so at ratio 1 too)
READ_BY: dict[str, tuple[object, tuple[str, ...], bool]] = {
    "clip_ratio": (0.2, _CLIPPED, False),
    "clip_ratio_low": (0.2, _CLIPPED, False),
    "clip_ratio_high": (0.2, _CLIPPED, False),
    "clip_ratio_c": (3.0, ("vanilla", "dppo_tv", "dppo_kl"), False),
    "tau_pos": (1.0, ("sapo",), False),
    "tau_neg": (1.05, ("sapo",), False),
    "policy_loss.clip_cov_ratio": (0.0002, ("clip_cov",), True),
    "policy_loss.clip_cov_lb": (1.0, ("clip_cov",), True),
    "policy_loss.clip_cov_ub": (5.0, ("clip_cov",), True),
    "policy_loss.kl_cov_ratio": (0.0002, ("kl_cov",), False),
    "policy_loss.ppo_kl_coef": (0.1, ("kl_cov",), False),
    "policy_loss.dro_beta": (None, ("dro",), False),
}

REJECTION = (
    "token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_sum_k2", "seq_sum_k3", "seq_mean_k1", "seq_mean_k2",
    "seq_mean_k3", "seq_max_k2", "seq_max_k3",
)  # fmt: skip


def check_loss(config: DictConfig) -> None:
    """Raises UserError for a setting of the policy loss that this run's loss does not read."""
    _loss_mode(config)
    for key, (default, modes, at_ratio_1) in READ_BY.items():
        value = OmegaConf.select(config, f"{ACTOR}.{key}")
        if value == default or (value is None and key.startswith("clip_ratio_")):  # null: clip_ratio
            continue
        reads = loss_is(*modes)
        if not reads(config):
            raise UserError(f"{ACTOR}.{key}={value} changes nothing: {reads.otherwise}")
        if not at_ratio_1 and not RATIO_MOVES(config):
            raise UserError(f"{ACTOR}.{key}={value} changes nothing: {RATIO_MOVES.otherwise}")


def _loss_mode(config: DictConfig) -> None:
    actor = config.actor_rollout_ref.actor
    mode = actor.policy_loss.loss_mode
    named = f"{ACTOR}.policy_loss.loss_mode={mode}"
    if mode == "bypass_mode":
        raise UserError(f"{named} is set by {CORRECTION}.bypass_mode=true: set that instead")
    if mode not in LOSS_MODES:
        raise UserError(f"{named} is unknown: choose one of {', '.join(LOSS_MODES)}")
    beta = actor.policy_loss.dro_beta
    if mode == "dro" and (isinstance(beta, bool) or not isinstance(beta, int | float) or beta <= 0):
        raise UserError(f"{named} needs {ACTOR}.policy_loss.dro_beta above 0, not {beta}")
    if not RATIO_MOVES(config) and mode in SAME_AT_RATIO_1:
        raise UserError(f"{named} trains as vanilla does: {RATIO_MOVES.otherwise}")
    if not RATIO_MOVES(config) and mode == "sapo" and actor.loss_agg_mode == "seq-mean-token-mean":
        raise UserError(
            f"{named} trains as vanilla does with {ACTOR}.loss_agg_mode=seq-mean-token-mean: {RATIO_MOVES.otherwise}"
        )


def check_correction(config: DictConfig) -> None:
    """Raises UserError for settings of `algorithm.rollout_correction` that are wrong, or that nothing would read."""
    settings = config.algorithm.rollout_correction
    if not settings:
        return
    if settings.rollout_is not in (None, "token", "sequence"):
        raise UserError(f"{CORRECTION}.rollout_is={settings.rollout_is} is unknown: choose token, sequence or null")
    if settings.bypass_mode:
        _bypass(config)
    elif settings.loss_type != "ppo_clip":
        raise UserError(f"{CORRECTION}.loss_type={settings.loss_type} changes nothing: set {CORRECTION}.bypass_mode=true")
    if settings.rollout_is is None:
        for name, default in (("rollout_is_threshold", 2.0), ("rollout_is_batch_normalize", False)):
            if settings[name] != default:
                raise UserError(f"{CORRECTION}.{name}={settings[name]} changes nothing: set {CORRECTION}.rollout_is")
    else:
        _bounds("rollout_is_threshold", settings.rollout_is_threshold, pair=True)
    if settings.rollout_rs is None and settings.rollout_rs_threshold is not None:
        raise UserError(
            f"{CORRECTION}.rollout_rs_threshold={settings.rollout_rs_threshold} changes nothing: set {CORRECTION}.rollout_rs"
        )
    if settings.rollout_rs is not None:
        _rejection(settings)
    if (corrects_rollouts(config) or settings.bypass_mode) and not config.actor_rollout_ref.rollout.calculate_log_probs:
        raise UserError(
            f"{CORRECTION} compares with the rollout's log-probabilities, which "
            "actor_rollout_ref.rollout.calculate_log_probs=False leaves out: set it to true"
        )


def _bypass(config: DictConfig) -> None:
    settings, mode = config.algorithm.rollout_correction, config.actor_rollout_ref.actor.policy_loss.loss_mode
    if settings.loss_type not in ("ppo_clip", "reinforce"):
        raise UserError(f"{CORRECTION}.loss_type={settings.loss_type} is unknown: choose ppo_clip or reinforce")
    if mode != "vanilla":
        raise UserError(
            f"{CORRECTION}.bypass_mode=true brings its own loss ({CORRECTION}.loss_type): "
            f"{ACTOR}.policy_loss.loss_mode={mode} would not be read; leave it at vanilla"
        )
    if settings.loss_type == "ppo_clip" and settings.rollout_is is not None:
        raise UserError(
            f"{CORRECTION}.rollout_is={settings.rollout_is} changes nothing in bypass mode with loss_type=ppo_clip, whose "
            f"ratio is the importance weight already: set {CORRECTION}.loss_type=reinforce, or rollout_is=null"
        )
    if masks := masking(config):
        raise UserError(
            f"{masks} and {CORRECTION}.bypass_mode=true exclude each other: verl's loss of that mode "
            "fails on a micro batch without a token to train on; unset one of them"
        )
    if config.actor_rollout_ref.old_log_probs == "recompute":
        raise UserError(
            f"actor_rollout_ref.old_log_probs=recompute and {CORRECTION}.bypass_mode=true exclude each other: in bypass mode "
            "the rollout's log-probabilities are the old ones; unset one of them"
        )


def _rejection(settings: DictConfig) -> None:
    names = [name.strip() for name in str(settings.rollout_rs).split(",") if name.strip()]
    unknown = [name for name in names if name not in REJECTION]
    if unknown or not names:
        raise UserError(f"{CORRECTION}.rollout_rs={settings.rollout_rs} is unknown: choose from {', '.join(REJECTION)}")
    given = settings.rollout_rs_threshold
    if given is None:
        raise UserError(f"{CORRECTION}.rollout_rs={settings.rollout_rs} needs {CORRECTION}.rollout_rs_threshold")
    specs = [spec.strip() for spec in str(given).split(",") if spec.strip()]
    if len(specs) not in (1, len(names)):
        raise UserError(
            f"{CORRECTION}.rollout_rs_threshold={given} has {len(specs)} entries for {len(names)} options: give one each"
        )
    for name, spec in zip(names, specs * len(names) if len(specs) == 1 else specs):
        _bounds("rollout_rs_threshold", spec, pair=name.endswith("k1"), lowest=1.0 if name.endswith("k1") else 0.0)


def _bounds(name: str, given: object, pair: bool, lowest: float = 0.0) -> None:
    """A number above 0 and at least `lowest`, or, where a pair is allowed, "lower_upper".

    (One number is the upper bound of a ratio, whose lower one is its reciprocal. Unquoted, Hydra reads 0.5_2 as 0.52.)
    """
    parts = str(given).split("_") if pair else [str(given).replace("_", "?")]
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    fits = not isinstance(given, bool) and 1 <= len(numbers) <= 2 and all(0 < x < float("inf") for x in numbers)
    if not fits or numbers[0] > numbers[-1] or (len(numbers) == 1 and numbers[0] < lowest):
        form = f"a number {f'of at least {lowest:g}' if lowest else 'above 0'}"
        raise UserError(f"{CORRECTION}.{name}={given} must be {form}{', or a quoted lower_upper' if pair else ''}")
