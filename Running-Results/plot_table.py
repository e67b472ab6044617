"""Start, final, best and marginal gain of every arm over the base line, as Figure/table.csv and Figure/table.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from Verl.analysis.plot_cli import common_options, load_or_say, shown_path
from Verl.analysis.summary import summary_table, to_markdown


def main() -> int:
    options = common_options(__doc__).parse_args()
    runs = load_or_say("table", options.result)
    if runs is None:
        return 1
    for problem in runs.problems:
        print(f"problem: {problem}")
    summary = summary_table(runs, pairs=options.pairs, result_dir=options.result)
    if summary.empty:
        print("table: no run has a test evaluation; nothing written.", file=sys.stderr)
        return 1
    options.figure.mkdir(parents=True, exist_ok=True)
    summary.to_csv(options.figure / "table.csv", index=False, float_format="%.6f", lineterminator="\n")
    (options.figure / "table.md").write_text(to_markdown(summary), encoding="utf-8")
    print(f"{shown_path(options.figure / 'table.md')}, .csv: {len(summary)} arms.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
