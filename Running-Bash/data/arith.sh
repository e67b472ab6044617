# shellcheck shell=bash
# arith: sums of three to four one-digit terms from reasoning-gym, generated here by seed; 512 train, 256 validation and
# 512 test questions, none in two splits. So few train questions that each comes back within a run, which replay needs.
arguments+=(
    data.train_files=Dataset/arithmetic/data/train.parquet
    data.val_files=Dataset/arithmetic/data/validation.parquet
    data.test_files=Dataset/arithmetic/data/test.parquet
    data.max_prompt_length=16
    data.max_response_length=32
)

prepare_data() {
    "$python" -m Verl.data.recipe Dataset/arithmetic/data ||
        "$python" Dataset/arithmetic/prepare.py --out Dataset/arithmetic/data --seed 0
}
