"""The `arithmetic` data set: reasoning-gym `chain_sum` questions in verl's row format.

What: sums and differences of three to four one-digit numbers, drawn with a seed. The prompt is the bare expression
(`7+5-3=`), because the tiny base model reads characters and every spared character makes a CPU step faster.

Why not plain `create_dataset(seed=...)` per split: reasoning-gym draws item i from seed + i, so neighbouring seeds give
shifted copies of one data set, and far-apart seeds still meet by chance (half of all questions have three terms, and
there are only 4,000 of those). Two rules keep the questions apart:

- every split draws from its own seed range (`_SEED_BLOCK` apart) and skips what an earlier split already holds;
- every expression belongs to one of two halves, by a hash of its text: the reinforcement learning half (train,
  validation, test) and the warm-start half, from which the tiny base model's demonstrations are drawn. So the base
  model never saw a question it is later trained or tested on, whatever the seeds and the split sizes.

Source: reasoning-gym 0.1.25, `reasoning_gym.arithmetic.chain_sum`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from Verl.data.schema import make_row, write_split_set
from Verl.reward.sources import CHAIN_SUM

TASK_SETTINGS = {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}

# 512 train questions: every batch size of the published grid up to 512 divides it, and a run of 100 steps at batch 64
# visits each question 12.5 times, so the replay arms have rewards to replay.
SPLIT_SIZES = {"train": 512, "validation": 256, "test": 512}

# Drawing order is not the order above: test first, so that changing the size of train never changes the test questions.
_DRAWING_ORDER = ("test", "validation", "train")
_SEED_BLOCK = 1_000_000
_STREAMS = {"test": 0, "validation": 1, "train": 2, "warm_start": 3}


@dataclass(frozen=True)
class ArithmeticSum:
    """One task: the prompt text (`7+5-3=`), its answer (`9`) and its number of terms (3)."""

    text: str
    answer: str
    terms: int


def in_warm_start_half(text: str) -> bool:
    """Whether a question belongs to the warm-start half. A hash of the text, so it holds for every seed and size."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


def stream(name: str, seed: int) -> Iterator[ArithmeticSum]:
    """Questions of one stream ("train", "validation", "test" or "warm_start"), repeats included, up to a seed block.

    The block of (seed, name) starts at (4 * seed + number of the stream) * 1,000,000: no two blocks overlap.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    import reasoning_gym  # late: it takes a second, and the check whether a set is up to date does without it

    first = (len(_STREAMS) * seed + _STREAMS[name]) * _SEED_BLOCK
    items = reasoning_gym.create_dataset("chain_sum", seed=first, size=_SEED_BLOCK, **TASK_SETTINGS)
    for item in items:
        text = item["metadata"]["expression"].replace(" ", "") + "="
        if in_warm_start_half(text) == (name == "warm_start"):
            yield ArithmeticSum(text=text, answer=item["answer"], terms=item["metadata"]["num_terms"])


def draw_splits(seed: int, sizes: Mapping[str, int] = SPLIT_SIZES) -> dict[str, list[ArithmeticSum]]:
    """Draw train, validation and test: `sizes[split]` different questions each, none of them in two splits."""
    unknown = set(sizes) - set(_DRAWING_ORDER)
    if unknown:
        raise ValueError(f"unknown splits {sorted(unknown)}; known are {sorted(_DRAWING_ORDER)}")
    taken: set[str] = set()
    drawn: dict[str, list[ArithmeticSum]] = {}
    for split in _DRAWING_ORDER:
        if split in sizes:
            drawn[split] = _draw_new(stream(split, seed), sizes[split], taken, split)
    return {split: drawn[split] for split in sizes}


def _draw_new(questions: Iterator[ArithmeticSum], count: int, taken: set[str], split: str) -> list[ArithmeticSum]:
    """The first `count` questions that are not in `taken`; adds them to it."""
    if count < 1:
        raise ValueError(f"split {split!r} needs at least one question, got {count}")
    new: list[ArithmeticSum] = []
    for question in questions:
        if question.text not in taken:
            taken.add(question.text)
            new.append(question)
            if len(new) == count:
                return new
    raise ValueError(f"split {split!r}: only {len(new)} of {count} different questions exist in its seed block")


def to_row(question: ArithmeticSum, split: str, index: int) -> dict:
    """A question in verl's row format. `index` counts per split from 0 and is what the replay window is keyed by."""
    return make_row(
        data_source=CHAIN_SUM,
        question=question.text,
        prompt=question.text,
        ability="math",
        ground_truth=question.answer,
        split=split,
        index=index,
        answer=question.answer,
        level=f"{question.terms} terms",
        subject="chain_sum",
    )


def recipe() -> dict:
    """What decides the rows besides the options (`Verl.data.recipe`)."""
    example = to_row(ArithmeticSum("7+5-3=", "9", 3), "train", 0)
    return {**example, "task": TASK_SETTINGS, "default sizes": SPLIT_SIZES, "generator": _generator()}


def defaults() -> dict:
    """The settings of a set that was prepared without options."""
    return {"seed": 0, "sizes": SPLIT_SIZES}


def _generator() -> str:
    return f"reasoning-gym {version('reasoning-gym')}"


def prepare(out_dir: Path, seed: int = 0, sizes: Mapping[str, int] = SPLIT_SIZES) -> dict[str, int]:
    """Write `<split>.parquet` files and `manifest.json` to `out_dir`; return the number of questions of each split."""
    splits = {
        split: [to_row(question, split, index) for index, question in enumerate(questions)]
        for split, questions in draw_splits(seed, sizes).items()
    }
    settings = {"seed": seed, "sizes": dict(sizes), "task": dict(TASK_SETTINGS)}
    options = [] if seed == 0 else ["--seed", str(seed)]
    for split, size in sizes.items():
        options += [] if size == SPLIT_SIZES[split] else [f"--{split}-size", str(size)]
    made = {"maker": "reasoning-gym", "options": options, "made": recipe()}
    write_split_set(Path(out_dir), splits, source=_generator(), settings=settings, recipe=made)
    return {split: len(rows) for split, rows in splits.items()}
