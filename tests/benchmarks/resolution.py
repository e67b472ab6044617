"""How often compare_with is wrong, and what it sees: simulated studies, scenario by scenario, and adding seeds.

    nice python -m tests.benchmarks.resolution [--studies 1000] [--planted 200] [--only PATTERN] [--again]
    nice python -m tests.benchmarks.resolution --unseen       # further scenarios; one (the noisy reference) was tuned on
    nice python -m tests.benchmarks.resolution --prototype    # the prototype on the studies of the issue's scenarios
    nice python -m tests.benchmarks.resolution --sequential   # adding seeds until it is decided

Writes tests/benchmarks/results/resolution.json after every scenario, and resolution.md from it. What is in the file with
as many studies is not run again. One process; about 40 ms of processor time a study of 28 arms.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.benchmarks.resolution_prototype import prototype_p
from tests.benchmarks.resolution_scenarios import SCENARIOS, UNSEEN, Scenario, study
from Verl.analysis.stats import compare_with, holm, paired_two_way
from Verl.statistics.sequential import SeedPlan, decide

RESULTS = Path(__file__).parent / "results"
PLANTED = 0.05


def _today(scores: dict[str, np.ndarray]) -> np.ndarray:
    """Holm's p of the paired two-way t test, arm by arm, as the report had it; arms with one seed left out."""
    mean = {name: np.asarray(x, dtype=float).mean(axis=2) for name, x in scores.items()}
    base = mean.pop("a0")
    return holm([paired_two_way(x, base[: len(x)]).p for x in mean.values()])


def false_alarms(case: Scenario, studies: int, seed: int) -> dict[str, float]:
    """Share of null studies with any "better" or "worse", by compare_with and (200 of them) by the test of today."""
    ours = todays = 0
    again = min(studies, 200)
    for i in range(studies):
        scores = study(case, np.random.default_rng([seed, i]), np.zeros(case.arms))
        ours += any(one.p <= 0.05 for one in compare_with(scores, "a0").values())
        todays += i < again and bool((_today(scores) <= 0.05).any())
    return {"false_alarms": ours / studies, "false_alarms_today": todays / again}


def effects(case: Scenario, rng: np.random.Generator) -> np.ndarray:
    """Every second arm with the planted difference, the others with none."""
    found = np.zeros(case.arms)
    found[1::2] = case.planted
    return found


def power_and_coverage(case: Scenario, studies: int, seed: int) -> dict[str, float]:
    """Power per planted arm, share of studies whose intervals all hold the truth, and the intervals' half width."""
    power, todays, covered, widths = [], [], 0, []
    for i in range(studies):
        rng = np.random.default_rng([seed + 1, i])
        truth = effects(case, rng)
        scores = study(case, rng, truth)
        found = list(compare_with(scores, "a0").values())
        power.append(np.mean([one.low > 0.0 for one in found[0::2]]))
        mean = [np.asarray(x, dtype=float).mean() for x in scores.values()]
        todays.append(np.mean([p <= 0.05 and m > mean[0] for p, m in zip(_today(scores)[0::2], mean[1::2])]))
        covered += all(one.low <= t <= one.high for one, t in zip(found, truth[1:]))
        widths += [0.5 * (one.high - one.low) for one in found]
    return {
        "planted": case.planted,
        "power": float(np.mean(power)),
        "power_today": float(np.mean(todays)),
        "coverage": covered / studies,
        "half_width": float(np.median(widths)),
    }


def prototype(case: Scenario, studies: int, planted: int, seed: int) -> dict[str, float]:
    """False alarms and power of the prototype on the very same studies."""
    wrong, power = 0, []
    for i in range(studies):
        scores = study(case, np.random.default_rng([seed, i]), np.zeros(case.arms))
        wrong += bool((prototype_p(scores, "a0") <= 0.05).any())
    for i in range(planted):
        rng = np.random.default_rng([seed + 1, i])
        scores = study(case, rng, effects(case, rng))
        mean = [np.asarray(x, dtype=float).mean() for x in scores.values()]
        power.append(np.mean([p <= 0.05 and m > mean[0] for p, m in zip(prototype_p(scores, "a0")[0::2], mean[1::2])]))
    return {"false_alarms_prototype": wrong / studies, "power_prototype": float(np.mean(power))}


# ---- adding seeds until it is decided


def _sequential_study(plan: SeedPlan, case: Scenario, seed: list[int], truth: np.ndarray) -> dict[str, float]:
    """One study run to its end under ``plan``, and by fixed designs of every number of seeds."""
    full = study(replace(case, seeds=plan.looks[-1]), np.random.default_rng(seed), truth)
    counts, decided = dict.fromkeys(full, plan.looks[0]), {}
    for k in range(len(plan.looks)):
        decided = decide({name: x[: counts[name]] for name, x in full.items()}, "a0", plan, decided)
        going = [name for name, one in decided.items() if not one.stops]
        if not going:
            break
        counts.update(dict.fromkeys(["a0", *going], plan.looks[k + 1]))
    verdicts = [one.verdict for one in decided.values()]
    null, planted = truth[1:] == 0.0, truth[1:] > 0.0
    wrong_equal = any(v == "equivalent" and plan.margin and abs(t) > plan.margin for v, t in zip(verdicts, truth[1:]))
    return {
        "false_alarm": any(v in ("better", "worse") for v, is_null in zip(verdicts, null) if is_null),
        "wrong_equal": wrong_equal,
        "runs": sum(counts.values()),
        "found": float(np.mean([v == "better" for v, is_one in zip(verdicts, planted) if is_one]))
        if planted.any()
        else 0.0,
        "equivalent": float(np.mean([v == "equivalent" for v, is_null in zip(verdicts, null) if is_null])),
    }


def fixed_power(case: Scenario, seeds: int, truth: np.ndarray, studies: int, seed: int) -> float:
    """Power of one look after ``seeds`` seeds."""
    found = []
    for i in range(studies):
        scores = study(replace(case, seeds=seeds), np.random.default_rng([seed, i]), truth)
        better = [one.low > 0.0 for one in compare_with(scores, "a0").values()]
        found.append(np.mean(np.array(better)[truth[1:] > 0.0]))
    return float(np.mean(found))


def sequential(studies: int, planted: int, seed: int) -> dict[str, float]:
    """Null studies for the errors under stopping; planted ones for runs, against the fixed design of equal power."""
    case = Scenario("sequential", SCENARIOS[1].spread, arms=10, samples=8, questions=256)
    case = replace(case, spread=lambda rng, arms: np.full(arms, 0.015))
    plan = SeedPlan(tuple(range(3, 11)), case.arms - 1, margin=0.02)
    nulls = [_sequential_study(plan, case, [seed, 0, i], np.zeros(case.arms)) for i in range(studies)]
    truth = np.r_[0.0, [0.0] * 4, [0.05] * 3, [0.1] * 2]
    mixed = [_sequential_study(plan, case, [seed, 1, i], truth) for i in range(planted)]
    power = float(np.mean([one["found"] for one in mixed]))
    runs = float(np.mean([one["runs"] for one in mixed]))
    powers, needed = {}, math.nan
    for seeds in range(plan.looks[0], plan.looks[-1] + 1):
        powers[str(seeds)] = fixed_power(case, seeds, truth, planted, seed + 7)
        if powers[str(seeds)] >= power:
            before = powers.get(str(seeds - 1), 0.0)
            part = (power - before) / (powers[str(seeds)] - before) if str(seeds - 1) in powers else 1.0
            needed = seeds - 1 + part
            break
    return {
        "studies": studies,
        "planted_studies": planted,
        "false_alarms": float(np.mean([one["false_alarm"] for one in nulls])),
        "false_alarms_beside_effects": float(np.mean([one["false_alarm"] for one in mixed])),
        "wrongly_equivalent": float(np.mean([one["wrong_equal"] for one in mixed])),
        "power": power,
        "runs": runs,
        "runs_null": float(np.mean([one["runs"] for one in nulls])),
        "fixed_power": powers,
        "fixed_seeds_of_equal_power": needed,
        "fixed_runs": needed * case.arms,
        "runs_saved": 1.0 - runs / (needed * case.arms),
    }


# ---- the table


def _markdown(kept: dict) -> str:
    lines = [
        "# Resolution of `compare_with`",
        "",
        "Made by `python -m tests.benchmarks.resolution`. Every row is one kind of simulated study; alpha is 0.05. False "
        "alarms: share of studies without any difference in which an arm is called better or worse. Power: share of the "
        "arms with the planted difference that are called better, half of the arms having it. Coverage: share of those "
        "studies whose simultaneous intervals all hold the truth. Prototype: one log-normal prior and Holm. Today: the paired "
        "two-way t test and Holm (on 200 null studies). "
        "The error of a share p of n studies is sqrt(p (1 - p) / n): 0.007 for 0.05 of 1,000.",
        "",
    ]
    for title, cases in (("Scenarios", SCENARIOS), ("Further scenarios", UNSEEN)):
        lines += [
            f"## {title}",
            "",
            "| scenario | studies | false alarms | prototype | today | planted | power | prototype | today | "
            "coverage | half width |",
            "|" + "---|" * 11,
        ]
        for case in cases:
            row = kept["scenarios"].get(case.name)
            if row is not None:
                name = f"{case.name} (issue)" if case.issue else case.name
                alarms = [row.get(f"false_alarms{which}", math.nan) for which in ("", "_prototype", "_today")]
                power = [row.get(f"power{which}", math.nan) for which in ("", "_prototype", "_today")]
                cells = [
                    name,
                    f"{row['studies']} + {row['planted_studies']}",
                    *("" if math.isnan(one) else f"{one:.3f}" for one in alarms),
                ]
                cells += [f"{row['planted']:g}", *("" if math.isnan(one) else f"{one:.2f}" for one in power)]
                cells += [f"{row['coverage']:.3f}", f"{row['half_width']:.3f}"]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    one = kept.get("sequential")
    if one:
        lines += [
            "## Seeds until it is decided",
            "",
            "10 arms, 256 questions, 8 samples, seeds' std 0.015, looks after 3, 4, ... 10 seeds, margin 0.02. Planted: four "
            "arms without a difference, three at +0.05, two at +0.1.",
            "",
            "| what | value |",
            "|---|---|",
            f"| false alarms, no differences ({one['studies']} studies) | {one['false_alarms']:.3f} |",
            f"| false alarms beside planted differences ({one['planted_studies']}) | "
            f"{one['false_alarms_beside_effects']:.3f} |",
            f"| studies with a planted arm called equivalent | {one['wrongly_equivalent']:.3f} |",
            f"| power per planted arm | {one['power']:.3f} |",
            f"| runs | {one['runs']:.1f} |",
            f"| seeds of the fixed design of equal power | {one['fixed_seeds_of_equal_power']:.2f} |",
            f"| its runs | {one['fixed_runs']:.1f} |",
            f"| runs saved | {one['runs_saved']:.2f} |",
            "",
        ]
    return "\n".join(lines)


def _write(kept: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name, text in (("resolution.json", json.dumps(kept, indent=1) + "\n"), ("resolution.md", _markdown(kept))):
        partial = RESULTS / f".{name}.part"
        partial.write_text(text, encoding="utf-8")
        partial.replace(RESULTS / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="null studies per scenario")
    parser.add_argument("--planted", type=int, default=200, help="studies with planted differences per scenario")
    parser.add_argument("--only", default="", help="scenarios whose names match this pattern")
    parser.add_argument("--again", action="store_true", help="run also what is in the file")
    parser.add_argument("--unseen", action="store_true", help="the further scenarios")
    parser.add_argument("--prototype", action="store_true", help="only the prototype, where the rest is in the file")
    parser.add_argument("--sequential", action="store_true", help="only the study that adds seeds")
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    path = RESULTS / "resolution.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"scenarios": {}}
    if options.sequential:
        kept["sequential"] = sequential(options.studies, options.planted, options.seed)
        print(kept["sequential"], flush=True)
        _write(kept)
        return
    for case in UNSEEN if options.unseen else SCENARIOS:
        if not re.search(options.only, case.name):
            continue
        row = kept["scenarios"].get(case.name, {})
        if options.prototype:
            if not case.issue or "power" not in row or ("power_prototype" in row and not options.again):
                continue
            row |= prototype(case, row["studies"], row["planted_studies"], options.seed)
        else:
            if row.get("studies", 0) >= options.studies and not options.again:
                continue
            row = {"studies": options.studies, "planted_studies": options.planted}
            row |= false_alarms(case, options.studies, options.seed)
            row |= power_and_coverage(case, options.planted, options.seed)
        kept["scenarios"][case.name] = row
        _write(kept)
        print(case.name, row, flush=True)
    _write(kept)


if __name__ == "__main__":
    main()
