"""The texts of `design.py`: tables of arms, differences and costs. Lines are returned, never printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from Verl.design.declared import Arm, Pair, Study, script_name
from Verl.design.differences import KeyDifference, explaining, single_key
from Verl.study import plan
from Verl.study.measured import seconds_per_evaluated, seconds_per_response
from Verl.study.shipped import Prepared
from Verl.trainer import memory


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Columns as wide as they must be: the first to the left, the others to the right."""
    texts = [[str(value) for value in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    return ["  ".join(f"{v:<{w}}" if i == 0 else f"{v:>{w}}" for i, (v, w) in enumerate(zip(row, widths))) for row in texts]


def show(study: Study, pairs: Sequence[Pair]) -> list[str]:
    """Factors with their questions and arms, then how many scripts each pair has."""
    lines = [f"base line: {study.base_line}", ""]
    for factor in study.factors.values():
        lines += [f"{factor.name}: {factor.title}", f"  {factor.question}"]
        lines += [f"  changes {', '.join(factor.keys)}"] if factor.keys else []
        where = "found there" if factor.source else "published (a digest, unconfirmed)"
        lines += [f"  argued about in: {factor.source}"] if factor.source else []
        lines += [f"  {where}: {factor.published}"] if factor.published else []
        lines += [f"  needs a GPU: {factor.gpu}"] if factor.gpu else []
        for pair in pairs:
            members = pair.members(factor)
            texts = [arm if arm == name else f"{arm} (for {name})" for name, arm in members.items()]
            if pair.compared(factor):
                lines.append(f"  {pair.name}: {', '.join(texts)}")
    lines += ["", *table(("pair", "arms"), [(pair.name, len(pair.arms)) for pair in pairs])]
    if len(pairs) == 1:
        lines += ["", *(f"Running-Bash/{script_name(arm, pairs[0].name)}" for arm in pairs[0].arms)]
    return lines


def difference(study: Study, found: list[KeyDifference], a: tuple[Arm, Pair], b: tuple[Arm, Pair]) -> list[str]:
    """The keys that differ, and whether that is one factor."""
    first, second = f"{a[0].name} on {a[1].name}", f"{b[0].name} on {b[1].name}"
    if not found:
        return [f"{first} and {second} do not differ"]
    lines = [f"{first} -> {second}:"]
    for one in found:
        follows = f"   (follows from {one.source})" if one.source else ""
        lines.append(f"  {one.key}: {one.a} -> {one.b}{follows}")
    factors = explaining(study, found, a[0], b[0], a[1]) if a[1] == b[1] else []
    if factors:
        lines.append(f"one factor: {'; '.join(f'{factor.name} ({factor.title})' for factor in factors)}")
    elif key := single_key(study, found):
        lines.append(f"one factor: {key} alone differs, but study.yaml compares the two under no factor")
    else:
        roots = sorted({one.source or one.key for one in found})
        lines.append(f"not one declared factor: {len(roots)} keys differ ({', '.join(roots)})")
    return lines


class CostPlan:
    """The cost of chosen arms of one pair."""

    def __init__(self, study: Study, pair: Pair, prepared: Sequence[tuple[Arm, Prepared]], options: Mapping[str, Any]):
        """options: steps, seeds, result_dir, machine (as study.yaml's entry), detectable (the same), seed_std (whether the
        user gave it), reference (what the arms are compared with; default: the base line)."""
        self.study, self.pair, self.options = study, pair, options
        self.size = memory.ModelSize.of(study.models[pair.model])
        self.questions = study.data[pair.data]
        self.machine = options["machine"]
        self.measured = seconds_per_response(options["result_dir"], pair.name)
        self.rows = [(arm, *self._cost(arm, one)) for arm, one in prepared]
        self.samples = plan.samples_at_the_ends(prepared[0][1].config) if prepared else 1

    def _cost(self, arm: Arm, one: Prepared) -> tuple[plan.Workload, memory.Memory | None, plan.Hours | None]:
        work = plan.workload(one.config, self.questions, self.options["steps"])
        found, machine = None, self.machine
        if "memory_gib" in machine:
            found = memory.memory(self.size, one.config, machine["memory_gib"], machine["reserve_gib"])
        if own := seconds_per_response(self.options["result_dir"], self.pair.name, arm.name):
            return work, found, plan.measured_hours(work, own[0], self._per_evaluated(arm.name))
        if self.measured:
            return work, found, plan.measured_hours(work, self.measured[0], self._per_evaluated(arm.name))
        if found is None or "bandwidth_gb_s" not in machine:
            return work, found, None
        at_once = max(1, min(found.at_once, one.config.actor_rollout_ref.rollout.max_num_seqs))
        return work, found, plan.reckoned_hours(self.size, work, at_once, machine)

    def _per_evaluated(self, arm: str) -> float | None:
        """Seconds per evaluated response: of the arm's runs, else of the pair's."""
        for name in (arm, "*"):
            if found := seconds_per_evaluated(self.options["result_dir"], self.pair.name, name):
                return found[0]
        return None

    def too_small(self) -> list[str]:
        """A sentence per arm that does not fit the machine."""
        sentences = [memory.too_small(f"{c.name} on {self.pair.name}", found) for c, _, found, _ in self.rows if found]
        return [sentence for sentence in sentences if sentence]

    @property
    def hours(self) -> float | None:
        """Of all arms and seeds; None if an arm's are not known."""
        known = [hours.total for _, _, _, hours in self.rows if hours]
        return sum(known) * self.options["seeds"] if len(known) == len(self.rows) else None

    @property
    def per_100_steps(self) -> float:
        """Hours of 100 steps of one seed of every arm, evaluation apart."""
        return sum(_per_100(work, hours) for _, work, _, hours in self.rows if hours)

    def lines(self) -> list[str]:
        bound = any(work.steps_are_bound for _, work, _, _ in self.rows)
        lines = [f"{self.pair.name}: {self.size.title} ({self.size.parameters / 1e9:.3g} G parameters) on "
                 f"{self.questions['title']}, {self.machine['title']}, per run"]  # fmt: skip
        if bound:
            lines.append("steps: nothing but the number of epochs ends these runs; --steps N plans (and runs) fewer")
        lines += ["", *table(self._head(), [self._row(*row) for row in self.rows]), ""]
        return [*lines, *self._totals(), "", *self._memory_lines(), *self._hours_lines(), "", *self._resolution()]

    def _head(self) -> tuple[str, ...]:
        return ("arm", "steps", "queries", "responses/step", "tokens <=", "GiB", "at once", "hours", "h/100 steps")

    def _row(self, arm: Arm, work: plan.Workload, found: memory.Memory | None, hours: plan.Hours | None) -> tuple:
        per_100 = _per_100(work, hours) if hours else None
        return (
            arm.name, work.steps, work.steps * work.queries, work.responses, _big(work.tokens),
            f"{found.peak:.1f}{'' if found.fits else ' (!)'}" if found else "-", found.at_once if found else "-",
            _hours(hours.total if hours else None), _hours(per_100),
        )  # fmt: skip

    def _totals(self) -> list[str]:
        seeds, tokens = self.options["seeds"], sum(work.tokens for _, work, _, _ in self.rows)
        text = f"all {len(self.rows)} arms x {seeds} seeds: {_big(tokens * seeds)} tokens at most"
        if self.hours is None:
            return [text]
        return [f"{text}, {_hours(self.hours)} hours; each 100 steps of one seed of all: {_hours(self.per_100_steps)} hours "
                "without evaluation"]  # fmt: skip

    def _memory_lines(self) -> list[str]:
        known = [row for row in self.rows if row[2]]
        if not known:
            return []
        arm, _, found, _ = max(known, key=lambda row: row[2].peak)
        parts = ("weights", "gradients", "optimizer", "gathered", "logits", "activations", "vllm", "cache")
        return [
            f"memory of {arm.name}, the largest, in GiB: {', '.join(f'{p} {getattr(found, p):.1f}' for p in parts)}",
            f"  generating {found.generate:.1f}, updating {found.update:.1f}, of {found.total:.1f} "
            f"({self.machine['reserve_gib']:g} of it an allowance for contexts and graphs), formula: Verl/trainer/memory.py",
        ]

    def _hours_lines(self) -> list[str]:
        hours = next((row[3] for row in self.rows if row[3]), None)
        if hours is None:
            return [f"hours: {self.pair.name} has no runs yet to measure; run a few steps of an arm first"]
        if not self.measured:
            return [f"hours: {hours.source}; the formula: Verl/study/plan.py; every response counted as long as it may be"]
        return [f"hours: measured, {_runs(self.measured[1])} of this pair: seconds per response drawn, median over steps and "
                "runs, at the lengths those runs had; an arm's own runs where it has any"]  # fmt: skip

    def _resolution(self) -> list[str]:
        """What the study will show, and where the next hours pay."""
        from Verl.study import resolution  # scipy: a second that `show` and `check` do not need

        chosen, questions = self.options["detectable"], self.questions["test"]
        arms = [arm.name for arm, *_ in self.rows]
        base = self.options.get("reference", self.study.base_line)
        reference = base if base in arms else arms[0]
        found = None
        if not self.options["seed_std"]:
            found = resolution.measured_noise(self.options["result_dir"], self.pair.name, self.pair.arms, reference)
        assumed = (
            f"assumed, std over seeds of a difference {chosen['seed_std']:g} and Pass@1 {chosen['pass_at_1']:g} (study.yaml; "
            "--result FOLDER of finished runs measures it, --seed-std sets it)"
        )
        noise, source = found or (resolution.assumed_noise(chosen, questions), assumed)
        size = {"seeds": self.options["seeds"], "samples": self.samples, "questions": questions}
        lines = resolution.expected(noise, source, arms=max(2, len(arms)), settings=chosen, **size)
        if self.hours is None:
            return [*lines, "where the next hour is best spent, seeds or answers, takes hours: run a few steps of an arm first"]
        each = [(hours.evaluate / work.evaluated if work.evaluated else 0.0, work, hours) for _, work, _, hours in self.rows]
        further = sum(pace * work.further for pace, work, _ in each)
        total = sum(hours.total for *_, hours in each)
        one_answer = sum(pace * 2 * questions for pace, *_ in each)
        if self.samples > 1:
            share = 100 * further / total
            lines.append(f"{self.samples} answers per test question at both ends take {share:.1f} % of these hours")
        if one_answer:
            lines += resolution.next_hour(noise, **size, run_hours=total - further, sample_hours=one_answer)
        return lines


def whole_study(plans: Sequence[CostPlan]) -> list[str]:
    """A line for all pairs together."""
    runs = sum(len(one.rows) * one.options["seeds"] for one in plans)
    tokens = sum(work.tokens * one.options["seeds"] for one in plans for _, work, _, _ in one.rows)
    known = [one for one in plans if one.hours is not None]
    line = f"all {len(plans)} pairs: {runs} runs, {_big(tokens)} tokens at most"
    if known:
        line += f", {_hours(sum(one.hours for one in known))} hours"
    if known and len(known) < len(plans):
        line += f" (without {', '.join(one.pair.name for one in plans if one not in known)}: not measured yet)"
    return [line]


def _per_100(work: plan.Workload, hours: plan.Hours) -> float:
    return (hours.generate + hours.train) / work.steps * 100


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _big(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:g}"


def _hours(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine_with(study: Study, pair: Pair, gpu_gib: float | None, efficiency: float | None) -> dict[str, Any]:
    """The pair's machine with what a user gives instead."""
    machine = dict(study.machines[pair.machine])
    if gpu_gib is not None and "memory_gib" in machine:
        machine |= {"memory_gib": gpu_gib, "title": f"a GPU of {gpu_gib:g} GiB (speed as {machine['title']})"}
    if efficiency is not None and "efficiency" in machine:
        machine["efficiency"] = efficiency
    return machine
