"""Reading runs, statistics, figures and verdicts. Imports neither torch nor verl, so that it starts fast."""
