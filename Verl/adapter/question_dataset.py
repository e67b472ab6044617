"""verl's data set, read from the file itself and not from a memory of it.

verl 0.9.1 reads with `datasets.load_dataset`, which keeps a copy of what it once read and finds it again by path and time
stamp: a file that was exchanged under the same time stamp (a copy that keeps dates, a restored backup) trains as the old
one. verl's `data.custom_cls` is the place for this class.
"""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from verl.utils.dataset.rl_dataset import RLHFDataset


class QuestionDataset(RLHFDataset):
    """The questions of a split. `left_out`: how many of the chosen ones had too long a prompt."""

    left_out = 0

    def _read_files_and_tokenize(self) -> None:
        tables = [pq.read_table(path, partitioning=None) for path in self.data_files]
        rows = datasets.concatenate_datasets([datasets.Dataset(pa.table(table)) for table in tables])
        if 0 < self.max_samples < len(rows):
            if self.shuffle:  # the rows that verl's own class would choose
                chosen = (
                    np.random.default_rng(self.seed).choice(len(rows), size=self.max_samples, replace=False).tolist()
                )
            else:
                chosen = range(self.max_samples)
            rows = rows.select(chosen)
        self.dataframe = self.maybe_filter_out_long_prompts(rows)
        self.left_out = len(rows) - len(self.dataframe)
