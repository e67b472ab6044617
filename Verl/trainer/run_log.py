"""The record of a run: <run>.jsonl, the samples, the evaluations, run.json; and verl's own loggers behind them.

`<run>.jsonl` has one flat object per step with every metric. It is written a line at a time: a line that can't be
written whole (a full disk) is taken back and the run stops. A resumed run cuts the file back to the step it resumes
from and goes on, so that there is neither a gap nor a repeat.
"""

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from Verl.errors import RunStopped
from Verl.files import write_atomic
from Verl.reward import parts
from Verl.trainer import full_disk, trackers
from Verl.trainer.console import Console, TrainingProgress

# Metrics that are wall time, memory or machine load: not the same twice, and left out when two runs are compared.
TIMING_PREFIXES = ("timing", "perf/", "ledger/total_hours")

# A NaN in one of these means that the weights are, or are about to be, lost.
_VITAL = ("actor/loss", "actor/pg_loss", "actor/grad_norm", "actor/kl_loss", "train/reward_mean", "train/advantage_mean")


class DrawnResponses(Protocol):
    """What is recorded of the responses of a step or an evaluation (`Verl.trainer.ppo.rollouts.Rollouts`)."""

    data_sources: list[str]
    indices: list[int]
    sessions: list[int]
    rewards: list[float]
    scores: dict[str, list[float]]
    reward_parts: dict[str, list[Any]]
    log_probs: list[list[float]]
    response_lengths: list[int]
    responses: list[list[int]]
    truncated: list[bool]
    penalties: list[float]
    extra: Any

    def __len__(self) -> int: ...
    def parts(self) -> Iterable["DrawnResponses"]: ...


class RunLog:
    """Writes what a trainer reports. Made before the trainer, so that what stops a set-up is recorded too."""

    def __init__(
        self, name: str, result_dir: Path, console: Console, samples: dict[str, Any] | None = None, seed: int = 0
    ):
        self.name, self.folder, self.console, self.seed = name, Path(result_dir) / name, console, seed
        self.jsonl = Path(result_dir) / f"{name}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._samples = samples or {"enable": False, "max_gb": 0.0}
        self._sample_bytes: int | None = None
        self._full_noted = False
        self._decode: Callable[[list[int]], str] = str
        self._tracking: Any = None
        self._progress: TrainingProgress | None = None
        self.last_step = -1
        self.last_record: dict[str, Any] = {}  # the last line
        self.after_line: Callable[[], None] = lambda: None  # the trainer's checkpoint, once the line is safe

    # ---- set-up -----------------------------------------------------------------------------------------------

    def attach(self, tracking: Any, total_steps: int) -> None:
        """Takes verl's Tracking (its console, tensorboard, wandb, ... loggers), which then gets every line too."""
        self._tracking = tracking
        trackers.bring_in_line(tracking, self)
        self._progress = TrainingProgress(self.console, total_steps)

    def use_tokenizer(self, tokenizer: Any) -> None:
        self._decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)

    def start_from(self, step: int) -> None:
        """Drops lines after `step` (all of them for a fresh start), and a last line that a kill cut short."""
        lines = []
        if step > 0 and self.jsonl.is_file():
            for text in self.jsonl.read_text().splitlines():
                try:
                    record = json.loads(text)
                except json.JSONDecodeError:
                    break
                if record["step"] > step:
                    break
                lines.append(text)
        write_atomic(self.jsonl, "".join(f"{text}\n" for text in lines))
        self.last_record = json.loads(lines[-1]) if lines else {}
        self.last_step = self.last_record.get("step", -1)
        for part in ("samples", "evaluations"):
            for path in (self.folder / part).glob("step_*.parquet"):
                if int(path.stem.split("_")[1]) > step or step == 0:
                    path.unlink()

    # ---- what verl's fit() calls ------------------------------------------------------------------------------

    def log(self, data: dict[str, Any], step: int, backend: Any = None) -> None:
        """One step's metrics. A step that is already in the file (the evaluation of a resumed run) is not repeated."""
        if step <= self.last_step:
            return
        metrics = {key: _number(value) for key, value in sorted(data.items()) if _number(value) is not None}
        if self._tracking is not None:
            self._tracking.log(data=metrics, step=step, backend=backend)
        record = {"step": step, **{k: _json_number(v) for k, v in metrics.items()}}
        self._append(json.dumps(record) + "\n")
        self.last_step, self.last_record = step, record
        self._show(step, metrics)
        self._check_finite(step, metrics)
        self.after_line()

    def amend(self, metrics: dict[str, float]) -> None:
        """Adds metrics to the last line: the evaluation of a run whose last step was not known to be the last."""
        if not metrics:
            return
        step = self.last_step
        if self._tracking is not None:
            self._tracking.log(data=metrics, step=step)
        known = {key: value for key, value in self.last_record.items() if key != "step"}
        added = {key: _json_number(value) for key, value in metrics.items()}
        self.last_record = {"step": step, **dict(sorted({**known, **added}.items()))}
        lines = self.jsonl.read_text().splitlines()
        write_atomic(self.jsonl, "".join(f"{text}\n" for text in [*lines[:-1], json.dumps(self.last_record)]))
        if self._progress is not None:
            self._progress.evaluation(step, metrics)

    def values(self, metric: str) -> dict[int, float]:
        """Step -> value of the lines that have a metric, read from the file."""
        records = self.records(f'"{metric}"')
        return {record["step"]: float(record[metric]) for record in records if metric in record}

    def records(self, having: str = "") -> list[dict[str, Any]]:
        """The lines of the file that hold a text."""
        lines = self.jsonl.read_text().splitlines() if self.jsonl.is_file() else []
        return [json.loads(text) for text in lines if having in text]

    def flush(self) -> None:
        """Has verl's loggers write what they still hold."""
        trackers.flush(self._tracking)

    def finish(self, exit_code: int = 0) -> None:
        if self._tracking is not None:
            self._tracking.finish(exit_code=exit_code)

    def _append(self, line: str) -> None:
        handle = os.open(self.jsonl, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        before = os.fstat(handle).st_size
        try:
            written = os.write(handle, line.encode())
            if written != len(line.encode()):
                raise OSError(28, "No space left on device")
        except OSError as error:
            os.ftruncate(handle, before)
            raise RunStopped(
                f"can't write to {self.jsonl}: {error.strerror}; free some space and start the same command again: "
                "it goes on from the last checkpoint"
            ) from None
        finally:
            os.close(handle)

    def _show(self, step: int, metrics: dict[str, float]) -> None:
        if self._progress is None:
            return
        if "train/reward_mean" in metrics:
            self._progress.step(step, metrics)
        self._progress.evaluation(step, metrics)

    def _check_finite(self, step: int, metrics: dict[str, float]) -> None:
        for key in _VITAL:
            if key in metrics and not math.isfinite(metrics[key]):
                raise RunStopped(
                    f"step {step}: {key} is {metrics[key]}; the update was not usable (a learning rate too high, or a "
                    f"reward that is not a number), so the run stops here; the metrics up to this step are in {self.jsonl}"
                )

    # ---- responses --------------------------------------------------------------------------------------------

    def samples(self, rollouts: DrawnResponses, step: int) -> None:
        """Every response drawn for training into samples/step_<k>.parquet; `trained` is False for onerpo's extra ones and for
        those that dynamic sampling threw away (`filtered`)."""
        if not self._keeps_samples():
            return
        columns: dict[str, list] = {}
        for part in rollouts.parts():
            part_columns = {
                **self._columns(part, step),
                "trained": [part is rollouts] * len(part),
                "filtered": [part is not rollouts and part is not rollouts.extra] * len(part),
                **({"truncated": part.truncated} if part.truncated else {}),
                **({"overlong_penalty": part.penalties} if part.penalties else {}),
                **self._said(part),
            }
            before = len(columns["step"]) if columns else 0
            for name in {**columns, **part_columns}:  # a part of the reward may be missing on either side
                values = part_columns.get(name, [None] * len(part))
                columns.setdefault(name, [None] * before).extend(values)
        self._sample_bytes += _write_parquet(self.folder / "samples" / f"step_{step:06d}.parquet", columns)

    def evaluation(self, name: str, step: int, rollouts: DrawnResponses) -> None:
        """Per question and sample: the scores of one evaluation, which paired tests over questions need; and what was
        said, where samples are kept. Samples that the file has already, of an evaluation that was cut, give way."""
        path = self.folder / "evaluations" / f"step_{step:06d}.parquet"
        columns = self._columns(rollouts, step)
        columns["split"] = [name] * len(rollouts)
        columns["sample"] = columns.pop("rollout")
        if self._keeps_samples():
            columns.update(self._said(rollouts))
        before = path.stat().st_size if path.is_file() else 0
        written = _write_parquet(path, columns, append=before > 0)
        self._sample_bytes = (self._sample_bytes or 0) + written - before

    def _keeps_samples(self) -> bool:
        """Whether texts and tokens are written: samples.enable, until they take samples.max_gb."""
        if not self._samples["enable"]:
            return False
        if self._sample_bytes is None:  # a resumed run has some
            files = [path for part in ("samples", "evaluations") for path in (self.folder / part).glob("*.parquet")]
            self._sample_bytes = sum(path.stat().st_size for path in files)
        full = self._sample_bytes > self._samples["max_gb"] * 1e9
        if full and not self._full_noted:
            self._full_noted = True
            self.console.say(f"samples.max_gb={self._samples['max_gb']:g} is reached: no more responses are written")
        return not full

    def _columns(self, rollouts: DrawnResponses, step: int) -> dict[str, list]:
        return {
            "step": [step] * len(rollouts),
            "seed": [self.seed] * len(rollouts),  # the run's; with step, question and rollout it gives the response's own
            "data_source": rollouts.data_sources,
            "index": rollouts.indices,
            "rollout": rollouts.sessions,
            "reward": rollouts.rewards,
            **rollouts.scores,
            **parts.columns(rollouts.reward_parts),
            "log_prob": [float(np.sum(values)) for values in rollouts.log_probs],
            "response_length": rollouts.response_lengths,
        }

    def _said(self, rollouts: DrawnResponses) -> dict[str, list]:
        return {"text": [self._decode(ids) for ids in rollouts.responses], "tokens": rollouts.responses}

    # ---- run.json ---------------------------------------------------------------------------------------------

    def recorded(self) -> dict[str, Any]:
        """What run.json says; empty if there is none."""
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def describe(self, **entries: Any) -> None:
        """Adds entries to run.json. Where the disk is full, in the space that the file has; if even that fails, it says so."""
        path = self.folder / "run.json"
        content = json.dumps({**self.recorded(), **entries}, indent=1) + "\n"
        try:
            write_atomic(path, content)
        except OSError as error:
            if not path.is_file():
                raise
            try:
                full_disk.overwrite(path, content)
            except OSError:
                self.console.say(f"can't write to {path} ({error.strerror}): it does not say {entries.get('status', 'this')}")


def _write_parquet(path: Path, columns: dict[str, list], append: bool = False) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if append:
        # The size cap may have been reached in between: what one part lacks becomes null.
        before = pq.read_table(path)
        known = {*zip(columns["split"], columns["sample"])}
        kept = [one not in known for one in zip(before["split"].to_pylist(), before["sample"].to_pylist())]
        table = pa.concat_tables([before.filter(pa.array(kept)), table], promote_options="default")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    blob = sink.getvalue().to_pybytes()
    write_atomic(path, blob)
    return len(blob)


def _number(value: Any) -> float | int | None:
    """Metrics as plain numbers; None for what is not one (verl reports a few dictionaries)."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, np.number):
        return value.item()
    if hasattr(value, "numel") and value.numel() == 1:
        return value.item()
    return None


def _json_number(value: float | int) -> float | int | str:
    # JSON has no NaN: a text keeps the line readable for every parser, and says what it was.
    return value if math.isfinite(value) else str(value)
