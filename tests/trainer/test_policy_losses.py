"""What verl's policy losses do at ratio 1, where every round's only update is: the facts behind loss_checks.py."""

import pytest
import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.workers.config import FSDPActorConfig, PolicyLossConfig

from Verl.design.declared import declared
from Verl.trainer.loss_checks import LOSS_MODES, READ_BY, SAME_AT_RATIO_1

S, T = 6, 5
DRAW = torch.Generator().manual_seed(0)
# Spread far enough that the covariance of advantage and log-probability passes clip_cov's lower bound of 1.
LOG_PROB_ST = -8 * torch.rand(S, T, generator=DRAW, dtype=torch.float64)
ADVANTAGE_ST = torch.tensor([2.0, -1.0, 0.5, -0.5, 1.5, -2.0], dtype=torch.float64)[:, None].expand(S, T)
MASK_ST = (torch.arange(T)[None, :] < torch.tensor([5, 4, 3, 5, 2, 1])[:, None]).double()


def gradient(mode: str, shift: float = 0.0, agg: str = "token-mean", **settings) -> torch.Tensor:
    """d loss / d log pi; `shift`: log ratio of the second half of the responses, growing along them."""
    policy = {key: settings.pop(key) for key in list(settings) if key in PolicyLossConfig.__dataclass_fields__}
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, loss_agg_mode=agg,
        policy_loss=PolicyLossConfig(loss_mode=mode, **{"dro_beta": 0.5, **policy}), **settings,
    )  # fmt: skip
    config.global_batch_info.update(dp_size=1, batch_num_tokens=None, global_batch_size=None, loss_scale_factor=None)
    log_prob = LOG_PROB_ST.clone().requires_grad_()
    old = LOG_PROB_ST - shift * (torch.arange(S) >= S // 2)[:, None] * (1 + torch.arange(T) / T)
    torch.manual_seed(0)
    loss, _ = get_policy_loss_fn(mode)(
        old_log_prob=old, log_prob=log_prob, advantages=ADVANTAGE_ST, response_mask=MASK_ST, loss_agg_mode=agg,
        config=config, rollout_is_weights=None,
    )  # fmt: skip
    return torch.autograd.grad(loss, log_prob)[0]


def test_the_list_of_losses_is_verl_s():
    assert {*LOSS_MODES, "bypass_mode"} == set(POLICY_LOSS_REGISTRY)


def test_the_defaults_are_verl_s():
    from Verl.trainer import settings

    actor = settings.defaults("grpo", "cpu").actor_rollout_ref.actor
    for key, (default, _, _) in READ_BY.items():
        value = actor
        for part in key.split("."):
            value = value[part]
        assert value == default, key


@pytest.mark.parametrize("agg", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
@pytest.mark.parametrize("mode", SAME_AT_RATIO_1)
def test_no_other_gradient_at_ratio_1(mode, agg):
    assert torch.equal(gradient(mode, agg=agg), gradient("vanilla", agg=agg))


@pytest.mark.parametrize("mode", SAME_AT_RATIO_1)
def test_another_gradient_elsewhere(mode):
    """A log ratio of 0.4 and more is beyond the clip of 0.2; kl_cov needs a share of the tokens that is at least one token."""
    share = {"kl_cov_ratio": 0.2} if mode == "kl_cov" else {}
    assert not torch.allclose(gradient(mode, 0.4, **share), gradient("vanilla", 0.4))


def test_what_differs_at_ratio_1():
    assert not torch.allclose(gradient("sapo"), gradient("vanilla"))
    assert not torch.allclose(gradient("geo_mean"), gradient("vanilla"))
    assert not torch.allclose(gradient("clip_cov"), gradient("vanilla"))
    per_response = gradient("vanilla", agg="seq-mean-token-mean")
    assert torch.allclose(gradient("sapo", tau_pos=3.0, tau_neg=0.5), per_response)


@pytest.mark.parametrize("key", [key for key, (_, _, at_ratio_1) in READ_BY.items() if not at_ratio_1])
def test_keys_without_effect_at_ratio_1(key):
    """Each under every loss that reads it: nothing at ratio 1, something elsewhere under at least one."""
    name, (_, modes, _) = key.rsplit(".", 1)[-1], READ_BY[key]
    value = {"clip_ratio_c": 1.05, "dro_beta": 3.0}.get(name, 0.05 if name.startswith("clip") else 0.2)
    settings = {name: value}
    if name == "clip_ratio":  # read where low and high are not given
        settings |= {"clip_ratio_low": None, "clip_ratio_high": None}
    if name == "ppo_kl_coef":
        settings["kl_cov_ratio"] = 0.2
    others = {key: value for key, value in settings.items() if key == "kl_cov_ratio" and name != "kl_cov_ratio"}
    # clip_cov draws the tokens that it leaves out by chance, among those not clipped: at ratio 1 the same ones.
    for mode in modes:
        assert torch.allclose(gradient(mode, **settings), gradient(mode, **others), atol=1e-15, rtol=1e-14), mode
    assert any(
        not torch.allclose(gradient(mode, shift, **settings), gradient(mode, shift, **others))
        for mode in modes for shift in (0.4, -0.4, 0.15)
    )  # fmt: skip


# The arms of the factor `ratio`, each with the clip range of its source; one response of two
# tokens, log ratios 0.2 and 0.4, so ratios 1.2214 and 1.4918 and, as a mean of the logs, exp(0.3) = 1.3499 for the response.
@pytest.mark.parametrize("mode, clip, advantage, weights", [
    ("vanilla", (0.2, 0.2), 1.0, [0, 0]),                # both above 1.2
    ("vanilla", (0.2, 0.28), 1.0, [1.2214, 0]),          # clip-higher keeps the first
    ("vanilla", (1.0, 1e9), 1.0, [1.2214, 1.4918]),      # no clip
    ("vanilla", (0.2, 0.2), -1.0, [1.2214, 1.4918]),     # the upper bound is for positive advantages
    ("gspo", (3e-4, 4e-4), 1.0, [0, 0]),
    ("gspo", (0.2, 0.5), 1.0, [1.3499, 1.3499]),         # the response's ratio for each of its tokens
    ("cispo", (1.0, 0.2), 1.0, [1.2, 1.2]),              # PPO's upper bound, where PPO leaves both tokens out
    ("cispo", (1.0, 4.0), 1.0, [1.2214, 1.4918]),        # as without a clip
    ("cispo", (1.0, 0.3), 1.0, [1.2214, 1.3]),           # clipped as a weight: the gradient stays
    ("cispo", (1.0, 0.3), -1.0, [1.2214, 1.3]),
])  # fmt: skip
def test_ratios_by_hand(mode, clip, advantage, weights):
    """d loss / d log pi = -A w / 2 with two tokens in the mean."""
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, policy_loss=PolicyLossConfig(loss_mode=mode),
        clip_ratio_low=clip[0], clip_ratio_high=clip[1], clip_ratio_c=1e9,
    )  # fmt: skip
    config.global_batch_info.update(dp_size=1, batch_num_tokens=None, global_batch_size=None, loss_scale_factor=None)
    log_prob = torch.tensor([[-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    loss, _ = get_policy_loss_fn(mode)(
        old_log_prob=log_prob.detach() - torch.tensor([[0.2, 0.4]]), log_prob=log_prob, response_mask=torch.ones(1, 2),
        advantages=torch.full((1, 2), advantage), loss_agg_mode="token-mean", config=config, rollout_is_weights=None,
    )  # fmt: skip
    found = torch.autograd.grad(loss, log_prob)[0][0]
    assert found.tolist() == pytest.approx([-advantage * weight / 2 for weight in weights], abs=1e-4)


def test_the_ratios_worked_out_by_hand_are_those_of_the_arms():
    """Clip ranges of the factors `ratio` and `clip`, as study.yaml declares them."""
    by_hand = {(mode, clip) for mode, clip, *_ in test_ratios_by_hand.pytestmark[0].args[1]}
    study = declared()
    for arm in (study.arms[name] for factor in ("ratio", "clip") for name in study.factors[factor].members):
        settings = dict(text.split("=", 1) for text in arm.settings)
        mode = settings.get("actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla")
        clip = tuple(float(settings.get(f"actor_rollout_ref.actor.clip_ratio_{end}", 0.2)) for end in ("low", "high"))
        assert (mode, clip) in by_hand, arm.name
