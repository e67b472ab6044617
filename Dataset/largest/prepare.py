"""Generate the data set `largest` into data/ beside this script: which of three numbers is the largest (no network).

For a small pretrained model: SmolLM2-135M-Instruct answers some of these questions, so that reinforcement has something to
start from; of sums, products and word problems it answers next to none.
"""

import argparse
import random
from pathlib import Path

from Verl.data.schema import make_row, write_split_set
from Verl.reward.sources import LARGEST

# So few to train on that each comes back many times within a short run, which replay needs.
SIZES = {"train": 64, "validation": 128, "test": 512}
NUMBERS, HIGHEST = 3, 99


def draw_splits() -> dict[str, list[dict]]:
    """The rows of each split. No three numbers are asked twice, in whatever order and split."""
    draw, seen, splits = random.Random(0), set(), {}
    for split, size in SIZES.items():
        rows = splits[split] = []
        while len(rows) < size:
            numbers = draw.sample(range(1, HIGHEST + 1), NUMBERS)
            if frozenset(numbers) in seen:
                continue
            seen.add(frozenset(numbers))
            question = f"What is the largest of the numbers {', '.join(map(str, numbers))}?"
            rows.append(make_row(
                data_source=LARGEST, ability="comparison", split=split, index=len(rows), question=question,
                prompt=question, ground_truth=str(max(numbers)), answer="",
            ))  # fmt: skip
    return splits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write")
    out = parser.parse_args().out
    settings = {"numbers": NUMBERS, "highest": HIGHEST}
    write_split_set(out, draw_splits(), source="Python's random, seed 0", settings=settings)
    print(f"written to {out}")
