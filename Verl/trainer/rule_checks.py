"""Whether the reward's rule differs from the strict one on the training data, before a process is started."""

from omegaconf import DictConfig
from pyarrow import compute, parquet

from Verl.errors import UserError
from Verl.reward.score import has_lenient_rule


def training_sources(config: DictConfig, key: str = "train_files") -> set[str]:
    """The data sources of the training questions, or of the files under another key of `data`."""
    files = config.data[key]
    files = [files] if isinstance(files, str) else list(files)
    columns = [parquet.read_table(path, columns=["data_source"])["data_source"] for path in files]
    return {source for column in columns for source in compute.unique(column).to_pylist()}


def check_reward_rule(config: DictConfig) -> None:
    """A rule must differ from the strict one on the training data.

    Raises:
        UserError: `reward.rule=lenient` off MATH, where it is the strict rule under another name.
    """
    if config.reward.rule != "lenient":
        return
    sources = training_sources(config)
    if not any(map(has_lenient_rule, sources)):
        raise UserError(
            f"reward.rule=lenient is the strict rule on {', '.join(sorted(sources))}: only MATH has wider spellings; choose "
            "strict or flexible"
        )
