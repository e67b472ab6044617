#!/usr/bin/env python3
"""Shows, compares, checks and plans the arms that study.yaml declares. Nothing here starts a run.

    python Running-Bash/design.py show --pair tiny_arith
    python Running-Bash/design.py diff grpo_0032_1 grpo_0032_8 --pair qwen0.5b_gsm
    python Running-Bash/design.py diff run_grpo_0032_8_llama1b_gsm.sh run_grpo_0032_8_olmo1b_gsm.sh
    python Running-Bash/design.py check
    python Running-Bash/design.py plan --pair qwen0.5b_gsm --steps 500 --seeds 3
"""

import sys

from Verl.study.design_cli import main

if __name__ == "__main__":
    sys.exit(main(description=__doc__))
