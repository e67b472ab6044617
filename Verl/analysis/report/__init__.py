"""The HTML report of a study. Start at build.py."""
