"""The figures: curves, levels, one run. Start at cli.py, which every plot_*.py calls."""
