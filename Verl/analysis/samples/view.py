"""The responses of a run, picked and paired for showing; `samples` and `samples_page` show them.

Reads `<result>/<run>/samples/step_<k>.parquet` (or `evaluations/`), which the trainer writes (Verl/trainer/run_log.py), a
step at a time and without its tokens, so that a long run costs no more memory than what is shown. Imports neither torch
nor verl.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from Verl import REPO_ROOT, RESULT_DIR
from Verl.analysis.runs import packed
from Verl.errors import UserError
from Verl.reward.parts import METRIC, TEXT

_SHOWN = ("step", "data_source", "index", "rollout", "reward", "strict", "flexible", "failure", "timeout", "log_prob",
          "response_length", "text")  # fmt: skip
_FILES = {None: "train_files", "train": "train_files", "validation": "val_files", "test": "test_files"}  # of config.yaml
_KEPT = "\n\t\u200d"  # line breaks, tabs, and the joiner that emoji are made with
_STEP_FILE = re.compile(r"step_(\d+)\.parquet")

Sample = dict[str, Any]  # one response, with the columns _SHOWN
Key = tuple[int, str, int, int]  # step, data source, index, rollout: by which two runs are paired


@dataclass(frozen=True)
class Filters:
    """Which responses to show; None lets all through.

    Args:
        first, last: steps, both included.
        index: the question's index in its data set.
        reward: the reward; side by side it is the first run's.
        evaluation: answers of the evaluations on "train", "validation", "test" or a benchmark instead of those of training.
    """

    first: int = 0
    last: int | None = None
    index: int | None = None
    reward: float | None = None
    evaluation: str | None = None

    @property
    def part(self) -> str:
        """The sub-folder of a run that holds these responses."""
        return "samples" if self.evaluation is None else "evaluations"

    def has_step(self, step: int) -> bool:
        return step >= self.first and (self.last is None or step <= self.last)


class Entry(NamedTuple):
    """One response, beside another run's answer to the same question at the same step where there is one."""

    sample: Sample
    other: Sample | None


class StepSummary(NamedTuple):
    """How a run did at one step, over the responses that match: number, mean reward, mean length in tokens."""

    step: int
    responses: int
    reward: float
    length: float


@dataclass
class View:
    """What is shown, in the terminal or on the page.

    Args:
        runs: one name, or two for side by side.
        filters: in words.
        found: how many responses (or pairs) match; `entries` holds the first of them.
        unpaired: responses of the first run without a partner in the second.
        scores_only: steps whose files hold scores and no texts, since samples.max_gb was reached; they are left out.
        history: for one question, per run, what its answers did over the steps.
        questions: (data source, index) -> (question, true answer), where the run's data is still there.
    """

    runs: list[str]
    filters: str
    entries: list[Entry] = field(default_factory=list)
    found: int = 0
    unpaired: int = 0
    scores_only: int = 0
    history: list[list[StepSummary]] = field(default_factory=list)
    questions: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)


def find_run(name: str, result_dir: Path = RESULT_DIR) -> Path:
    """The folder of a run, by name or path. Raises UserError that names the runs there are."""
    for folder in (Path(name), result_dir / name):
        if (folder / "samples").is_dir() or (folder / "evaluations").is_dir() or packed.find_evaluations(folder):
            return folder
    known = sorted(path.parent.name for path in result_dir.glob("*/samples"))
    there = f"; runs with samples: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else ""
    raise UserError(f"no samples of a run {name} in {result_dir} (samples.enable=true has them written){there}")


def step_files(folder: Path, filters: Filters) -> dict[int, Path]:
    """The sample files of the steps asked for, by step."""
    paths = packed.find_evaluations(folder) if filters.evaluation is not None else (folder / filters.part).glob("*.parquet")
    found = {int(match[1]): path for path in paths if (match := _STEP_FILE.fullmatch(path.name))}
    return {step: found[step] for step in sorted(found) if filters.has_step(step)}


def read_step(path: Path, filters: Filters, use_reward: bool = True) -> pa.Table:
    """The matching responses of one step, by question and rollout."""
    try:
        names = set(packed.column_names(path))
        if "text" not in names:
            raise UserError(f"{path} holds scores only: what was said is written with samples.enable=true")
        # An evaluation counts samples, not rollouts; whether a response was trained on is not in files of older runs.
        columns = ["sample" if name == "rollout" and filters.evaluation else name for name in _SHOWN]
        parts = sorted(name for name in names if name.startswith((METRIC, TEXT)))
        table = packed.read_rows(path, [*columns, *sorted(names & {"split", "trained"}), *parts])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} can't be read as samples ({str(error).splitlines()[0]})") from error
    if filters.evaluation is not None:
        table = table.rename_columns(["rollout" if name == "sample" else name for name in table.column_names])
        table = table.filter(pc.and_(pc.equal(table["split"], filters.evaluation), pc.is_valid(table["text"])))
    if filters.index is not None:
        table = table.filter(pc.equal(table["index"], filters.index))
    if use_reward and filters.reward is not None:
        table = table.filter(pc.less(pc.abs(pc.subtract(table["reward"], filters.reward)), 1e-9))
    return table.sort_by([("data_source", "ascending"), ("index", "ascending"), ("rollout", "ascending")])


def key_of(sample: Sample) -> Key:
    return sample["step"], sample["data_source"], sample["index"], sample["rollout"]


def build_view(folder: Path, filters: Filters, limit: int | None, against: Path | None = None) -> View:
    """Collects what to show. `limit`: at most so many entries; None for all.

    Raises:
        UserError: nothing matches.
    """
    view = View([folder.name] if against is None else [folder.name, against.name], describe(filters))
    first = _with_texts(step_files(folder, filters), view)
    second = _with_texts(step_files(against, filters), view) if against is not None else {}
    for step, path in first.items():
        table = read_step(path, filters)
        others = read_step(second[step], filters, use_reward=False) if step in second else None
        for entry in _entries(table, others, against is not None, view):
            view.found += 1
            if limit is None or len(view.entries) < limit:
                view.entries.append(entry)
    if not view.found:
        raise UserError(f"no response of {' and '.join(view.runs)} matches ({view.filters}); {_there_is(folder, filters)}")
    if filters.index is not None:
        view.history = [_history(files, filters) for files in ([first] if against is None else [first, second])]
    wanted = {(entry.sample["data_source"], entry.sample["index"]) for entry in view.entries}
    view.questions = find_questions(folder, wanted, filters.evaluation)
    return view


def _with_texts(files: dict[int, Path], view: View) -> dict[int, Path]:
    """The files that say something. All of them where none does: `read_step` then tells why there is nothing to show."""
    said = {step: path for step, path in files.items() if _has_texts(path)}
    if not said:
        return files
    view.scores_only = max(view.scores_only, len(files) - len(said))
    return said


def _has_texts(path: Path) -> bool:
    try:
        return "text" in packed.column_names(path)
    except (pa.ArrowException, OSError):
        return True  # not a file of ours: `read_step` names it


def _entries(table: pa.Table, others: pa.Table | None, paired: bool, view: View) -> Iterator[Entry]:
    if not paired:
        yield from (Entry(sample, None) for sample in table.to_pylist())
        return
    partners = {key_of(sample): sample for sample in others.to_pylist()} if others is not None else {}
    for sample in table.to_pylist():
        partner = partners.get(key_of(sample))
        if partner is None:
            view.unpaired += 1
        else:
            yield Entry(sample, partner)


def _history(files: dict[int, Path], filters: Filters) -> list[StepSummary]:
    """Over all rewards: the share of right answers at a step would be 0 or 1 if only right or wrong ones counted."""
    summaries = []
    for step, path in files.items():
        table = read_step(path, filters, use_reward=False)
        if table.num_rows:
            mean = {name: pc.mean(table[name]).as_py() for name in ("reward", "response_length")}
            summaries.append(StepSummary(step, table.num_rows, mean["reward"], mean["response_length"]))
    return summaries


def _there_is(folder: Path, filters: Filters) -> str:
    steps = list(step_files(folder, Filters(evaluation=filters.evaluation)))
    kept = f"of steps {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"of step {steps[0]}" if steps else "yet"
    return f"{folder.name} has {'' if steps else 'no '}{filters.part} {kept}"


def find_questions(
    folder: Path, wanted: set[tuple[str, int]], evaluation: str | None = None
) -> dict[tuple[str, int], tuple[str, str]]:
    """Question and true answer of the given questions from the run's data files, as far as they are still there."""
    import yaml

    try:
        config = yaml.safe_load(packed.read_text(folder / "config.yaml"))
        data = config["data"]
        files = data[_FILES[evaluation]] if evaluation in _FILES else data["benchmarks"][evaluation]
        found = {}
        for name in [files] if isinstance(files, str) else files:
            table = pq.read_table(REPO_ROOT / name, columns=["data_source", "prompt", "reward_model", "extra_info"])
            indices = pc.struct_field(table["extra_info"], "index")
            table = table.filter(pc.is_in(indices, value_set=pa.array([index for _, index in wanted], indices.type)))
            for row in table.to_pylist():
                key = (row["data_source"], row["extra_info"]["index"])
                if key in wanted:
                    found[key] = (row["prompt"][-1]["content"], row["reward_model"]["ground_truth"])
        return found
    except (OSError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException, yaml.YAMLError):
        return {}  # a run without its data can still be shown, only without the questions


def describe(filters: Filters) -> str:
    """The filters in words."""
    parts = [] if filters.evaluation is None else [f"evaluation on {filters.evaluation}"]
    if filters.first > 0 or filters.last is not None:
        single = filters.first == filters.last
        last = "the last" if filters.last is None else filters.last
        parts.append(f"step {filters.first}" if single else f"steps {filters.first} to {last}")
    if filters.index is not None:
        parts.append(f"question {filters.index}")
    if filters.reward is not None:
        parts.append(f"reward {filters.reward:g}")
    return ", ".join(parts) or "all responses"


def verdict(sample: Sample) -> str:
    """The scores in words."""
    if sample["timeout"]:
        return "scoring timed out"
    if sample["failure"]:
        return "scoring failed"
    if sample["strict"]:
        return "right"
    return "right, but not in the format" if sample["flexible"] > 0 else "wrong"


def visible(text: str) -> str:
    """Text whose control and direction characters can be seen and do nothing: an escape becomes ␛, U+202E \\u202e."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if character in _KEPT:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def heading(view: View) -> str:
    """What is shown, in a line."""
    what = ("pair" if len(view.runs) == 2 else "response") + ("" if view.found == 1 else "s")
    shown = (
        f"{len(view.entries)} of {view.found:,} {what}" if len(view.entries) < view.found else f"{view.found:,} {what}"
    )
    unpaired = f"; {view.unpaired:,} without a partner" if view.unpaired else ""
    silent = f"; steps with scores only: {view.scores_only:,}" if view.scores_only else ""
    return f"{' | '.join(view.runs)}: {view.filters}, {shown}{unpaired}{silent}"


def facts(sample: Sample) -> str:
    """The numbers of one response."""
    return (
        f"{verdict(sample)}, reward {sample['reward']:g}, {sample['response_length']} tokens, "
        f"log-prob {sample['log_prob']:.1f}" + (", not trained on" if sample.get("trained") is False else "") + _parts(sample)
    )


def _parts(sample: Sample) -> str:
    """The parts of a user's reward; a text is cut after 60 characters."""
    found = []
    for name, value in sample.items():
        if value is None or not name.startswith((METRIC, TEXT)):
            continue
        text = f"{value:g}" if isinstance(value, float) else f"{value[:60]}..." if len(value) > 60 else value
        found.append(f"{name.partition('/')[2]} {visible(text)}")
    return f"; {', '.join(found)}" if found else ""
