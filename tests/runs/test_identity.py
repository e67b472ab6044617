"""A run that was cut off does not go on over other data; and what it left out is counted where it is looked for."""

import json
import os
import shutil
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from Verl.data.schema import make_row

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_data_exchanged_between_kill_and_resume(mini, tmp_path):
    files = tmp_path / "data"
    shutil.copytree(mini.folder / "data", files)
    (files / "manifest.json").unlink()
    path = files / "train.parquet"
    rows = pq.read_table(path).to_pylist()
    long = "1+1+1+1+1+1+1+1+1+1+1+1+1-1="
    rows += [
        make_row(data_source="reasoning_gym/chain_sum", question=long, prompt=long, ability="arithmetic", ground_truth="12",
                 split="train", index=48, answer="12")
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    # Two benchmarks in one test set, whose questions carry the same numbers.
    test = pq.read_table(files / "test.parquet").to_pylist()[:8]
    other = [{**row, "data_source": "made/up", "prompt": [{"role": "user", "content": f"0+{row['prompt'][0]['content']}"}],
              "extra_info": {**row["extra_info"], "question": ""}} for row in test]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(test), files / "test.parquet")
    pq.write_table(pa.Table.from_pylist(other), files / "other.parquet")
    overrides = [f"data.train_files={path}", f"data.test_files=[{files}/test.parquet,{files}/other.parquet]",
                 "trainer.total_training_steps=4"]  # fmt: skip
    assert mini.kill_after("grpo", "exchanged", 3, *overrides) == -signal.SIGKILL
    assert not mini.wait_until_clean()

    before = path.stat()
    rows[0], rows[1] = ({**rows[0], "prompt": rows[1]["prompt"]}, {**rows[1], "prompt": rows[0]["prompt"]})
    pq.write_table(pa.Table.from_pylist(rows), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused = mini.run("grpo", "exchanged", *overrides)
    assert refused.status == 2 and f"data.train_files/{path}" in refused.output, refused.output
    assert refused.output.strip().count("\n") == 0 and len(refused.records) == 4

    resumed = mini.hosted("grpo", "exchanged", *overrides, "run.resume_changed=true")
    assert resumed.status == 0, resumed.output
    record = json.loads((resumed.folder / "run.json").read_text())
    assert [list(change["entries"]) for change in record["changed"]] == [[f"data.train_files/{path}"]]
    assert record["left_out"] == {"train": 1, "validation": 0, "test": 0}
    assert record["questions"] == {"train": 48, "validation": 16, "test": 16}
    assert "1 of 49 train questions are left out" in resumed.output
    first, last = resumed.records[0], resumed.records[-1]
    assert first["eval/test/questions"] == 16 and first["eval/test/made-up/questions"] == 8
    assert last["eval/test/pass@1"] == pytest.approx(
        (last["eval/test/made-up/pass@1"] + last["eval/test/reasoning_gym-chain_sum/pass@1"]) / 2
    )
