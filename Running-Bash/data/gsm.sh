# shellcheck shell=bash
# gsm: GSM8K from the Hugging Face Hub; 512 of its 7,473 training questions are set aside for validation, 1,319 test.
# Without a network: BANDIT_GSM8K=<folder with train.jsonl and test.jsonl as published>.
arguments+=(
    data.train_files=Dataset/gsm8k/data/train.parquet
    data.val_files=Dataset/gsm8k/data/validation.parquet
    data.test_files=Dataset/gsm8k/data/test.parquet
)
# A CPU carries a small model only through short answers.
[[ $model == smollm135m ]] && arguments+=(data.max_prompt_length=256 data.max_response_length=192)

prepare_data() {
    "$python" -m Verl.data.recipe Dataset/gsm8k/data ||
        "$python" Dataset/gsm8k/prepare.py --out Dataset/gsm8k/data ${BANDIT_GSM8K:+--source "$BANDIT_GSM8K"}
}
