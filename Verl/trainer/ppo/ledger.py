"""What a step cost and what it learnt from: queries, responses, tokens and gradient samples, per step and in all.

Arms can only be compared at equal cost if the cost is written down. Queries and generated count everything that the policy
drew for training: extra responses, and the groups that dynamic sampling threw away (filtered). Trained counts those that
went through the gradient; of these, masked ones are in no term of the loss (cut off, rejected whole, or of a kind that is
not trained on), and wasted ones, masked ones among them, have the advantage 0. Evaluation is not counted: it is the same
for every arm.
"""

from collections import defaultdict

import numpy as np
import torch

from Verl.reward.parts import means as part_means
from Verl.trainer.ppo.rollouts import Rollouts

# Counted up over the run; total_hours is wall time and therefore not the same twice.
TOTALS = ("queries", "responses_generated", "tokens_generated", "responses_trained", "tokens_trained",
          "gradient_samples", "wasted_responses", "masked_responses", "filtered_queries", "filtered_responses")  # fmt: skip

MASKED = "ledger/masked_responses"


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Reward, its parts, scores and lengths of the trained responses; failures of all that were drawn.

    `train/constant_groups` counts all queries that were drawn. Dynamic sampling trains on those alone that vary: its
    train/pass@1 says little of the policy, `train/drawn_pass@1` is over everything but extra responses.
    """
    lengths = np.asarray(rollouts.response_lengths)
    everything = rollouts.parts()
    drawn = {}
    if rollouts.filtered is not None:
        drawn = {"train/drawn_pass@1": float(np.mean(rollouts.scores["strict"] + rollouts.filtered.scores["strict"]))}
    return {
        **drawn,
        "train/reward_mean": float(np.mean(rollouts.rewards)),
        "train/pass@1": float(np.mean(rollouts.scores["strict"])),
        **{f"train/{name}": mean for name, mean in rollouts.other_scores().items()},
        **part_means(rollouts.reward_parts),
        "train/response_length_mean": float(lengths.mean()),
        "train/response_length_max": float(lengths.max()),
        **({"train/truncated": float(np.mean(rollouts.truncated))} if rollouts.truncated else {}),
        "reward/failures": float(sum(sum(part.scores["failure"]) for part in everything)),
        "reward/timeouts": float(sum(sum(part.scores["timeout"]) for part in everything)),
        **_constant_groups(rollouts),
    }


def _constant_groups(rollouts: Rollouts) -> dict[str, float]:
    """Share of queries whose rewards are all equal (extra ones included), where a query has more than one."""
    pools: dict[str, list[float]] = defaultdict(list)
    for part in rollouts.parts():
        for uid, reward in zip(part.uids, part.rewards, strict=True):
            pools[uid].append(reward)
    several = [pool for pool in pools.values() if len(pool) > 1]
    return {"train/constant_groups": sum(min(p) == max(p) for p in several) / len(several)} if several else {}


def advantage_metrics(advantages: torch.Tensor, response_mask: torch.Tensor) -> dict[str, float]:
    """Mean, variance and share of zeros of the advantage, one value per response."""
    first = response_mask.argmax(dim=1, keepdim=True)
    advantage_S = advantages.gather(1, first).squeeze(1).double()
    return {
        "train/advantage_mean": float(advantage_S.mean()),
        "train/advantage_var": float(advantage_S.var()) if len(advantage_S) > 1 else 0.0,
        "train/advantage_max_abs": float(advantage_S.abs().max()),
        "train/zero_advantage": float((advantage_S == 0).double().mean()),
    }


class Ledger:
    """Per-step counts and their running totals, which a checkpoint carries."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(TOTALS, 0.0)
        self.hours = 0.0

    def step(self, rollouts: Rollouts, metrics: dict) -> dict[str, float]:
        """This step's entries and the totals after it."""
        parts = rollouts.parts()
        away = [part for part in (rollouts.filtered, rollouts.filtered and rollouts.filtered.extra) if part is not None]
        wasted = metrics.get("train/zero_advantage", 0.0) * len(rollouts)
        counts = {
            "queries": len({uid for part in parts for uid in part.uids}),
            "responses_generated": sum(len(part) for part in parts),
            "tokens_generated": sum(sum(part.response_lengths) for part in parts),
            "responses_trained": len(rollouts),
            "tokens_trained": sum(rollouts.response_lengths),
            "gradient_samples": len(rollouts) - round(wasted),
            "wasted_responses": round(wasted),
            "masked_responses": round(metrics.get(MASKED, 0.0)),
            "filtered_queries": len({uid for part in away for uid in part.uids}),
            "filtered_responses": sum(len(part) for part in away),
        }
        hours = metrics.get("timing_s/step", 0.0) / 3600
        self.hours += hours
        for name, count in counts.items():
            self.totals[name] += count
        entries = {f"ledger/{name}": float(count) for name, count in counts.items()}
        entries |= {f"ledger/total_{name}": self.totals[name] for name in TOTALS}
        return entries | {
            "ledger/extra_responses": float(len(rollouts.extra)) if rollouts.extra else 0.0,
            "ledger/total_hours": self.hours,
        }

    def budget_reached(
        self, generated_tokens: float | None, gradient_samples: float | None, hours: float | None
    ) -> str | None:
        """Name of the first of the given budgets that is used up (None: no limit)."""
        spent = {
            "generated_tokens": (self.totals["tokens_generated"], generated_tokens),
            "gradient_samples": (self.totals["gradient_samples"], gradient_samples),
            "hours": (self.hours, hours),
        }
        return next((name for name, (total, limit) in spent.items() if limit is not None and total >= limit), None)

    def state_dict(self) -> dict:
        return {"totals": dict(self.totals), "hours": self.hours}

    def load_state_dict(self, state: dict) -> None:
        self.totals = dict.fromkeys(TOTALS, 0.0) | state["totals"]
        self.hours = state["hours"]
