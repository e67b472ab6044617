"""The floor: the barest loop that does a step's work, in two ways (every sequence with its prompt; prompts carried once), and
plain Hugging Face `generate` at the same batch, in turn in one process.

    python -m tests.benchmarks.speed.loop '<work as json>' <steps>      prints one line of json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from tests.benchmarks.speed import limits
from tests.benchmarks.speed.bare import Bare, rollout, shared, unshared
from tests.benchmarks.speed.work import Work, exact_prompts, prepare, prompt_ids

FORWARD = {"unshared": unshared, "shared": shared}
KL_COEFFICIENT, CLIP = 0.001, 0.2


def loss_sum(logp_ST: torch.Tensor, ref_ST: torch.Tensor, advantages_S: torch.Tensor) -> torch.Tensor:
    """GRPO's clipped loss plus the KL term, summed over tokens. One update a round: the old policy is the policy."""
    ratio = (logp_ST - logp_ST.detach()).exp()
    gain = torch.minimum(ratio * advantages_S[:, None], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages_S[:, None])
    gap = ref_ST - logp_ST
    return (KL_COEFFICIENT * (gap.exp() - gap - 1) - gain).sum()


class Loop:
    """Policy, reference, optimizer and the prompts of one work."""

    def __init__(self, work: Work, prompts: list[list[int]], folder: Path):
        self.work, self.prompts_GP = work, torch.tensor(prompts)
        self.policy, self.reference = Bare(folder, grad=True), Bare(folder, grad=False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-6, weight_decay=0.01, fused=True)

    def micro_batches(self):
        """Slices of queries and of their sequences; a query's rollouts stay together."""
        per = max(1, self.work.micro // self.work.rollouts)
        for start in range(0, self.work.queries, per):
            end = min(start + per, self.work.queries)
            yield slice(start, end), slice(start * self.work.rollouts, end * self.work.rollouts)

    def step(self, way: str) -> dict[str, float]:
        """One step; seconds of its phases."""
        forward, marks = FORWARD[way], [time.perf_counter()]
        responses_ST = rollout(self.policy, self.prompts_GP, self.work.rollouts, self.work.response).clone()
        marks.append(time.perf_counter())
        rewards_GN = (responses_ST.sum(1) % 2).float().view(self.work.queries, -1)
        advantages_S = rewards_GN.flatten()
        if self.work.rollouts > 1:
            spread = rewards_GN.std(dim=1, keepdim=True) + 1e-6
            advantages_S = ((rewards_GN - rewards_GN.mean(dim=1, keepdim=True)) / spread).flatten()
        with torch.no_grad():
            parts = [forward(self.reference, self.prompts_GP[g], responses_ST[s]) for g, s in self.micro_batches()]
            ref_ST = torch.cat(parts)
        marks.append(time.perf_counter())
        for g, s in self.micro_batches():
            logp_ST = forward(self.policy, self.prompts_GP[g], responses_ST[s])
            (loss_sum(logp_ST, ref_ST[s], advantages_S[s]) / responses_ST.numel()).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        marks.append(time.perf_counter())
        gen, ref, update = (after - before for before, after in zip(marks, marks[1:]))
        return {"step": marks[-1] - marks[0], "gen": gen, "ref": ref, "update_actor": update}


def generate_seconds(model, prompts_GP: torch.Tensor, work: Work) -> float:
    """Plain `model.generate` on the repeated prompts, end token suppressed."""
    ids = prompts_GP.repeat_interleave(work.rollouts, dim=0)
    began = time.perf_counter()
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_new_tokens=work.response, min_new_tokens=work.response,
    )  # fmt: skip
    assert out.shape[1] == work.prompt + work.response
    return time.perf_counter() - began


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work, steps = Work.from_json(sys.argv[1]), int(sys.argv[2])
    folder, _, _ = prepare(work, rows=work.queries)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [prompt_ids(tokenizer, text) for text in exact_prompts(tokenizer, work.prompt, work.queries)]
    loop = Loop(work, prompts, folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows: dict[str, list[dict]] = {"unshared": [], "shared": [], "generate": []}
    for _ in range(steps + 1):
        for way in FORWARD:
            rows[way].append(loop.step(way))
        seconds = generate_seconds(plain, loop.prompts_GP, work)
        rows["generate"].append({"step": seconds, "gen": seconds})
    rows = {way: records[1:] for way, records in rows.items()}  # the first warms up
    rates = limits.matmul_rate()
    decode = statistics.median(record["gen"] for record in rows["shared"])
    counted = limits.count(loop.policy, work)
    sys.stdout.write(json.dumps({"steps": rows, "matmul": rates, "flops": counted, "decode": decode}) + "\n")


if __name__ == "__main__":
    main()
