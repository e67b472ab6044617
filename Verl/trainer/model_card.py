"""The model card (README.md) of an exported checkpoint: what it is, what made it, what it scored, how to use it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from Verl import REPO_ROOT
from Verl.trainer.benchmarks import KEY, SPLITS, evaluated_sets
from Verl.trainer.export import ChosenCheckpoint, records

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SCORE = re.compile(r"eval/(.+)/(pass@1|flexible|format)")
_SETTINGS = {  # key of the config -> its name in the card
    "algorithm.adv_estimator": "estimator",
    "data.train_batch_size": "queries a step",
    "actor_rollout_ref.rollout.n": "rollouts per query",
    "data.extra_sampling_size": "extra rollouts per query",
    "data.window_size": "window of rewards",
    "actor_rollout_ref.actor.optim.lr": "learning rate",
    "actor_rollout_ref.actor.kl_loss_coef": "KL coefficient",
    "reward.rule": "reward rule",
    "reward.custom_reward_function.path": "reward function",
}


def model_card(chosen: ChosenCheckpoint, fingerprint: str, dtype: str) -> str:
    """The text of README.md.

    Args:
        fingerprint: of the checkpoint's weights and config (`Verl.evaluation.models`).
        dtype: of the weights, as in the folder.
    """
    record, config = records(chosen.run)
    name = str(record.get("run") or (chosen.run.name if chosen.run else chosen.checkpoint.name))
    base = str(_get(config, "actor_rollout_ref.model.path") or "")
    step = "" if chosen.step is None else f", step {chosen.step}"
    parts = [_front_matter(base), f"# {name}{step}", _summary(record, base)]
    parts.append(_table([("", ""), *_facts(chosen, record, config, fingerprint, dtype)]))
    parts += ["## Scores", _scores(chosen), "## Use", _use(config)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(base: str) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [reinforcement-learning, verl]"]
    if _HUB_NAME.fullmatch(base) and not (REPO_ROOT / base).exists():
        lines.append(f"base_model: {base}")
    return "\n".join(["---", *lines, "---"])


def _summary(record: dict[str, Any], base: str) -> str:
    if not record:
        return "A checkpoint that was exported away from its run, whose records (run.json, config.yaml) were not beside it."
    trained = f"{_code(base)} after reinforcement fine-tuning" if base else "Reinforcement fine-tuning"
    verl = record.get("versions", {}).get("verl", "")
    return f"{trained} with verl {verl}: arm {_code(record.get('arm'))} on {_code(record.get('data'))}."


def _facts(
    chosen: ChosenCheckpoint, record: dict[str, Any], config: dict[str, Any], fingerprint: str, dtype: str
) -> list[tuple[str, str]]:
    """What made it, a row each; what is not known is left out."""
    facts = [("checkpoint", f"{_code(chosen.checkpoint.name)}, {chosen.why}"), ("weights", f"{dtype}, {fingerprint[:16]}")]
    facts += [(key, _code(record[key])) for key in ("arm", "seed", "command", "commit", "config_hash") if key in record]
    facts += [(name, _code(value)) for key, name in _SETTINGS.items() if (value := _get(config, key)) is not None]
    own = {split: _get(config, key) for split, key in SPLITS.items()}
    for split, files in {**own, **(_get(config, KEY) or {})}.items():
        if files:
            count = record.get("questions", {}).get(split)
            requested = f", {count} questions" if count else ""
            facts.append((f"{split} data", _code(", ".join([files] if isinstance(files, str) else files)) + requested))
    if versions := record.get("versions"):
        facts.append(("versions", _code(", ".join(f"{name} {version}" for name, version in versions.items()))))
    return facts


def _scores(chosen: ChosenCheckpoint) -> str:
    """Scores at the start and at the checkpoint's step, or at the last evaluation before it."""
    steps = [step for step in sorted(chosen.scores) if chosen.step is not None and step <= chosen.step]
    if not steps:
        return "The run's log holds no evaluation up to this step."
    shown = list(dict.fromkeys([steps[0], steps[-1]]))
    rows = [("score", *(f"step {step}" for step in shown))]
    for key in dict.fromkeys(key for step in shown for key in chosen.scores[step]):
        if match := _SCORE.fullmatch(key):
            values = [chosen.scores[step].get(key) for step in shown]
            rows.append((f"{match[1]} {match[2]}", *("-" if value is None else f"{value:.4f}" for value in values)))
    last = chosen.scores[steps[-1]]
    how = [f"{int(last[key])} questions of {split}" for split in evaluated_sets(last)
           if (key := f"eval/{split}/questions") in last]  # fmt: skip
    temperature = last.get("eval/test/temperature", last.get("eval/validation/temperature"))
    sampled = f", sampled at temperature {temperature:g}" if temperature is not None else ""
    return f"{_table(rows)}\n\n{', '.join(how)}{sampled}; `pass@1`: the strict rule, the share answered rightly."


def _use(config: dict[str, Any]) -> str:
    template = _get(config, "data.apply_chat_template_kwargs") or {}
    more = "".join(f", {name}={json.dumps(value)}" for name, value in template.items() if str(name).isidentifier())
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
messages = [{{"role": "user", "content": "..."}}]  # the question with its instruction, as in the training data
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{more})
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=512)[0]))
```

The generation config is the base model's. Training and evaluation drew plain samples, without top-p, top-k or a
repetition penalty."""


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _code(value: object) -> str:
    """Any text as code in a table's cell: nothing in it can end the cell or become a mark."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else "-"


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def write_card(folder: Path, chosen: ChosenCheckpoint, fingerprint: str) -> None:
    """Write README.md into an exported folder, which says what type its weights are."""
    config = json.loads((folder / "config.json").read_text())
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "unknown")
    (folder / "README.md").write_text(model_card(chosen, fingerprint, dtype), encoding="utf-8")
