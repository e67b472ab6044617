"""What Running-Bash/study.yaml declares: arms, factors, pairs; and how the configs of two arms differ. Start at declared.py."""
