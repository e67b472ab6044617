"""Generate the data set `largest` into data/ beside this script: which of four numbers is the largest (no network).

For a small pretrained model. SmolLM2-135M-Instruct answers next to no sum, product or word problem, and talks around most
questions; shown three examples it names one number and stops, mostly one of the four, and not often the largest: a form that
it has, and a task that it has to learn.
"""

import argparse
import random
from pathlib import Path

from Verl.data.schema import make_row, write_split_set
from Verl.reward.sources import LARGEST

# So few to train on that each comes back many times within a short run, which replay needs.
SIZES = {"train": 64, "validation": 128, "test": 512}
NUMBERS, HIGHEST = 4, 99
EXAMPLES = ((17, 84, 3, 52), (9, 31, 65, 28), (93, 12, 58, 6))  # the largest stands in no place twice


def prompt(numbers: tuple[int, ...]) -> str:
    return f"What is the largest of the numbers {', '.join(map(str, numbers))}?"


def draw_splits() -> dict[str, list[dict]]:
    """The rows of each split. No four numbers are asked twice, in whatever order and split, nor those of an example."""
    draw, seen, splits = random.Random(0), set(map(frozenset, EXAMPLES)), {}
    examples = [(prompt(numbers), str(max(numbers))) for numbers in EXAMPLES]
    for split, size in SIZES.items():
        rows = splits[split] = []
        while len(rows) < size:
            numbers = tuple(draw.sample(range(1, HIGHEST + 1), NUMBERS))
            if frozenset(numbers) in seen:
                continue
            seen.add(frozenset(numbers))
            rows.append(make_row(
                data_source=LARGEST, ability="comparison", split=split, index=len(rows), question=prompt(numbers),
                prompt=prompt(numbers), ground_truth=str(max(numbers)), answer="", examples=examples,
            ))  # fmt: skip
    return splits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write")
    out = parser.parse_args().out
    settings = {"numbers": NUMBERS, "highest": HIGHEST, "examples": EXAMPLES}
    write_split_set(out, draw_splits(), source="Python's random, seed 0", settings=settings)
    print(f"written to {out}")
