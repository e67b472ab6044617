# shellcheck shell=bash
# math: MATH from the Hugging Face Hub; 512 of its 7,490 usable training problems are set aside for validation; the test
# set is MATH-500. Without a network: BANDIT_MATH=<folder as Dataset/README.md describes it>.
arguments+=(
    data.train_files=Dataset/MATH/data/train.parquet
    data.val_files=Dataset/MATH/data/validation.parquet
    data.test_files=Dataset/MATH/data/test.parquet
)

prepare_data() {
    "$python" -m Verl.data.recipe Dataset/MATH/data ||
        "$python" Dataset/MATH/prepare.py --out Dataset/MATH/data ${BANDIT_MATH:+--source "$BANDIT_MATH"}
}
