"""The kept results as one markdown table per row."""

from __future__ import annotations

import statistics

from tests.benchmarks.speed.work import Work

NAMES = {
    "ours": "ours",
    "before": "ours before",
    "trl": "TRL",
    "generate": "Hugging Face generate",
    "unshared": "bare loop",
    "shared": "bare loop, prompts shared",
}


def collect(kept: dict) -> dict[str, dict]:
    """Per line of the table: its records of all rounds, and what else its runs say."""
    lines: dict[str, dict] = {}
    for run in kept["runs"]:
        if "steps" not in run:
            continue
        for way, records in run["steps"].items():
            if way == "ours":
                way = run["contender"]
            elif run["contender"] == "loop_overhead":
                way = f"{way}_overhead"
            line = lines.setdefault(way, {"records": [], "gigabytes": [], "start": [], "runs": []})
            line["records"] += records
            line["gigabytes"].append(run["gigabytes"])
            line["start"] += [run["start"]] if "start" in run else []
            line["runs"].append(run)
    return lines


def median(line: dict, name: str) -> float | None:
    """Median over all kept steps, or None where the contender has no such phase."""
    values = [record[name] for record in line["records"] if name in record]
    return statistics.median(values) if values else None


def limit(kept: dict, lines: dict[str, dict]) -> float | None:
    """Seconds no step can beat: operations of the shared tokens at the measured rate, plus the bare loop's rollout."""
    if "shared" not in lines:
        return None
    runs = lines["shared"]["runs"]
    rate = statistics.median(run["matmul"] for run in runs)
    flops = runs[0]["flops"]
    return (flops["ref"] + flops["update_actor"]) / rate + median(lines["shared"], "gen")


def _cell(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def row_table(kept: dict) -> str:
    """One row's table, with what it was measured on beneath it."""
    if not kept["runs"]:
        return f"**{kept['row']}**: nothing measured yet"
    if kept["row"] == "default":
        return default_table(kept)
    work, lines = Work(**kept["work"]), collect(kept)
    out = [
        f"**{kept['row']}**: {work.model}, {work.queries} x {work.rollouts} rollouts, "
        f"{work.prompt} + {work.response} tokens, one update",
        "",
        "| | step, s: median (min to max) | generate | reference | update | rest | tokens/s, generate | tokens/s, step "
        "| peak GB | start, s | steps |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way, name in NAMES.items():
        if way in lines:
            out.append(_line(name, way, lines[way], work))
    bound = limit(kept, lines)
    if bound is not None:
        rate = statistics.median(run["matmul"] for run in lines["shared"]["runs"])
        flops = lines["shared"]["runs"][0]["flops"]
        seconds = {name: flops[name] / rate for name in ("ref", "update_actor")}
        out.append(
            f"| limit | {bound:.2f} | {_cell(median(lines['shared'], 'gen'))} | {_cell(seconds['ref'])} | "
            f"{_cell(seconds['update_actor'])} | | | {work.response_tokens / bound:.0f} | | | |"
        )
    return "\n".join([*out, "", *_notes(kept, lines, work, bound)])


def _line(name: str, way: str, line: dict, work: Work) -> str:
    steps = [record["step"] for record in line["records"]]
    step, gen = statistics.median(steps), median(line, "gen")
    if way == "trl" and work.rollouts == 1:
        name += f" ({work.for_trl().queries} x 2)"
    first = f"{step:.2f} ({min(steps):.2f} to {max(steps):.2f})"
    ref, update = median(line, "ref"), median(line, "update_actor")
    rest = None if way == "generate" else step - sum(value or 0 for value in (gen, ref, update))
    start = statistics.median(line["start"]) if line["start"] else None
    if way == "generate":
        first = ""
    # The loops and generate share one process: its memory is nobody's.
    memory = statistics.median(line["gigabytes"]) if way in ("ours", "before", "trl") else None
    whole = None if way == "generate" else work.response_tokens / step
    return (
        f"| {name} | {first} | {_cell(gen)} | {_cell(ref)} | {_cell(update)} | {_cell(rest)} | "
        f"{_cell(work.response_tokens / gen, 0)} | {_cell(whole, 0)} | {_cell(memory)} | {_cell(start, 1)} | {len(steps)} |"
    )


def _notes(kept: dict, lines: dict[str, dict], work: Work, bound: float | None) -> list[str]:
    notes = []
    if "ours" in lines:
        mine = median(lines["ours"], "step")
        against = [
            f"{median(lines[way], 'step') / mine:.2f} x {NAMES[way]}" for way in ("trl", "before") if way in lines
        ] + ([f"{mine / bound:.2f} x the limit's seconds"] if bound else [])
        notes.append(f"Ours: as fast as {', '.join(against)}." if against else "")
        if "generate" in lines:
            factor = median(lines["generate"], "gen") / median(lines["ours"], "gen")
            notes.append(f"Rollout: {factor:.2f} times the tokens per second of `generate`.")
    for way in ("ours", "before"):
        if f"{way}_overhead" in lines and "shared_overhead" in lines:
            with_system, bare = (median(lines[f"{name}_overhead"], "step") for name in (way, "shared"))
            notes.append(
                f"Overhead of {NAMES[way]}: with a model of one layer of width 32 a step takes {with_system:.2f} s, the bare "
                f"loop's {bare:.2f} s: {with_system - bare:.2f} s for verl, Ray and the transfer queue."
            )
    if bound is not None:
        run = lines["shared"]["runs"][0]
        notes.append(
            f"Limit: {(run['flops']['ref'] + run['flops']['update_actor']) / 1e9:.0f} GFLOP over "
            f"{run['flops']['tokens']:.0f} tokens at {run['matmul'] / 1e9:.0f} GFLOP/s, plus the bare loop's rollout."
        )
    taken = max((run["others"] for run in kept["runs"] if "others" in run), default=0.0)
    if taken > 0.1:  # the tree's own last two seconds are among it
        notes.append(f"Not undisturbed: other processes took up to {100 * taken:.0f} % of the cores during a run.")
    return [*notes, _measured_on(kept)]


def _measured_on(kept: dict) -> str:
    commits = {run["contender"]: run["commit"][:12] for run in kept["runs"] if "commit" in run}
    trl = next((run["versions"] for run in kept["runs"] if run["contender"] == "trl"), {})
    ours = ", ".join(f"{name} {kept['versions'][name]}" for name in ("verl", "torch", "transformers", "ray"))
    theirs = ", ".join(f"{name} {version}" for name, version in trl.items())
    return (
        f"{kept['machine']['processor']}, {kept['machine']['cpus']} cores, {kept['machine']['gigabytes']} GB; {ours}"
        + (f"; TRL's environment: {theirs}" if trl else "")
        + "".join(f"; {name} at {commit}" for name, commit in commits.items() if name in ("ours", "before"))
        + "."
    )


def default_table(kept: dict) -> str:
    """The default run's numbers, ours and before side by side."""
    sides = {
        contender: [run["default"] for run in kept["runs"] if run["contender"] == contender]
        for contender in ("ours", "before")
    }
    sides = {name: rows for name, rows in sides.items() if rows}
    out = [f"**default**: {kept['work']['script']}", "", "| | " + " | ".join(NAMES[name] for name in sides) + " |"]
    out.append("|---" * (len(sides) + 1) + "|")
    for key in next(iter(sides.values()))[0]:
        values = [statistics.median(row[key] for row in rows) for rows in sides.values()]
        out.append(f"| {key.strip()} | " + " | ".join(f"{value:.4g}" for value in values) + " |")
    return "\n".join([*out, "", _measured_on(kept)])
